"""Container names: which are allowed, and made-up ones (pure: randomness comes in as an argument)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lamina.errors import InvalidArgument

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
TRIES = 6
"""How often a made-up name is tried before the short id is taken. Source: moby daemon/names.go."""


def parse_name(text: str) -> str:
    """A name as the user gave it, without its leading slash.

    Raises:
        InvalidArgument: shorter than two characters, or with others than the allowed ones.
    """
    if not _NAME.fullmatch(text):
        shown = text[:300]
        raise InvalidArgument(f"Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return text.removeprefix("/")


def made_up_name(choose: Callable[[Sequence[str]], str]) -> str:
    """Two words such as `patient_heron`; `choose` picks one of a sequence at random."""
    return f"{choose(QUALITIES)}_{choose(CREATURES)}"


_QUALITIES = """
able agile airy amber ample apt ardent autumn awake azure balmy bold brave breezy bright brisk bronze calm
candid careful cheerful civil clear clever cobalt cosy crimson crisp curious daring dappled deft dusky eager
early earnest easy fair faithful fearless fine fleet fluent fond free fresh gentle glad golden grand green happy
hardy hazel honest humble idle indigo ivory jolly jovial keen kind lasting lively loyal lucid lucky lunar mellow
merry mild modest neat nimble noble olive open patient peaceful plucky polite proud prudent quick quiet rapid
ready robust rosy rustic scarlet serene silent silver sincere sleek snug solar solid spry steady still stout
sturdy sunny swift tame tender thrifty tidy tranquil trusty upbeat useful valiant velvet vivid warm wary wise
witty zesty
"""
_CREATURES = """
adder albatross alpaca ant antelope auk avocet badger barbel bat bear beaver bee beetle bison bittern boar
bobcat bream bunting buzzard camel caribou carp cat chamois civet clam cod condor coot cormorant cow crab crane
cricket crow cuckoo curlew deer dingo dipper dolphin dormouse dove duck dunlin eagle eel egret eider elk ermine
falcon ferret finch firefly flounder fox frog gannet gazelle gecko gibbon goat godwit goose grebe grouse gull
hare harrier hawk hedgehog hen heron herring hoopoe horse hyrax ibex ibis jackdaw jay kestrel kite kiwi koala
lamprey lapwing lark lemur linnet lion lizard llama lobster lynx magpie mallard marten merlin mink mole moose
moth mouse mule newt nightjar ocelot octopus okapi oriole osprey otter owl ox oyster panda parrot partridge
pelican perch pheasant pigeon pike pipit plover pony puffin quail rabbit raven ray redwing robin rook ruff
salmon sandpiper seal serval shrew skua snail snipe sparrow squid squirrel starling stoat stork swallow swan
swift tapir teal tench tern thrush tiger toad trout turtle viper vole wagtail walrus warbler weasel whale wigeon
wolf wombat woodcock wren yak zebra
"""
QUALITIES = tuple(_QUALITIES.split())
CREATURES = tuple(_CREATURES.split())
