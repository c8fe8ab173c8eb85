"""Changes of a run config as Dockerfile instructions."""

from __future__ import annotations

import pytest

from lamina.engine.config_changes import apply_changes
from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a","b c"]'], {"Cmd": ["a", "b c"]}),
        (["cmd a b"], {"Cmd": ["/bin/sh", "-c", "a b"]}),
        (["CMD"], {"Cmd": []}),
        (["CMD [a]"], {"Cmd": ["/bin/sh", "-c", "[a]"]}),
        (['ENTRYPOINT ["e"]'], {"Entrypoint": ["e"], "Cmd": None}),
        (['CMD ["c"]', "ENTRYPOINT e"], {"Cmd": ["c"], "Entrypoint": ["/bin/sh", "-c", "e"]}),
        (["ENV A=1 B='x y'", "ENV A=2", "ENV C $A z"], {"Env": ["A=2", "B=x y", "C=2 z"]}),
        (["LABEL k=v", 'LABEL "a b"=c'], {"Labels": {"k": "v", "a b": "c"}}),
        (
            ["EXPOSE 80 53/udp 8000-8001"],
            {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}},
        ),
        (["VOLUME /a /b", 'VOLUME ["/c d"]'], {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        (["USER 1000:1000"], {"User": "1000:1000"}),
        (["WORKDIR /a/../b", "WORKDIR c"], {"WorkingDir": "/b/c"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --retries=3 CMD curl x"],
            {"Healthcheck": {"Test": ["CMD-SHELL", "curl x"], "Interval": 90_000_000_000, "Retries": 3}},
        ),
        (["ENV X=1\nUSER $X"], {"Env": ["X=1"], "User": "1"}),
    ],
)
def test_each_instruction(changes: list[str], expected: JsonObject) -> None:
    assert apply_changes({}, changes) == expected


def test_what_is_there_stays_and_is_not_touched() -> None:
    before: JsonObject = {"Env": ["PATH=/bin"], "Cmd": ["x"], "Labels": {"a": "1"}, "Other": 5}
    after = apply_changes(before, ["ENV PATH=$PATH:/y", "LABEL b=2"])
    assert after == {"Env": ["PATH=/bin:/y"], "Cmd": ["x"], "Labels": {"a": "1", "b": "2"}, "Other": 5}
    assert before == {"Env": ["PATH=/bin"], "Cmd": ["x"], "Labels": {"a": "1"}, "Other": 5}


@pytest.mark.parametrize(
    "change",
    [
        "RUN rm -rf /",
        "FROM x",
        "COPY a b",
        "ENV",
        "ENV A",
        "ENV A=1 B",
        "ENV =x",
        "LABEL a",
        "EXPOSE 0",
        "EXPOSE 70000",
        "EXPOSE 9-8",
        "EXPOSE x/tcp",
        "VOLUME ''",
        "ONBUILD ONBUILD RUN x",
        "ONBUILD FROM x",
        "HEALTHCHECK",
        "HEALTHCHECK RUN x",
        "HEALTHCHECK --interval=x CMD y",
        "WORKDIR",
        "USER ${X",
    ],
)
def test_what_is_not_allowed_or_wrong_is_refused(change: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes({}, [change])
