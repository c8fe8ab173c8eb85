"""Templates give what Go's text/template gives for the same values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cli.templates import Template
from lamina.errors import InvalidArgument

VALUE = {
    "Name": "/web",
    "State": {"Running": True, "ExitCode": 0, "Status": "running"},
    "Env": ["A=1", "B=2"],
    "Labels": {"b": "2", "a": "1"},
    "Nothing": None,
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{ .State.Status }}!", "running!"),
        ("{{.State.Running}} {{.State.ExitCode}}", "true 0"),
        ("{{.Env}} {{.Labels}} {{.Nothing}}", "[A=1 B=2] map[a:1 b:2] <no value>"),
        ("{{json .Env}}", '["A=1","B=2"]'),
        ("{{.Env | json}}", '["A=1","B=2"]'),
        ('{{join .Env ", "}}', "A=1, B=2"),
        ('{{index .Labels "a"}}{{index .Env 1}}', "1B=2"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if not .State.Running}}down{{end}}.", "."),
        ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with .Nothing}}x{{else}}none{{end}}", "none"),
        ("a {{- .Name -}} b", "a/webb"),
        ('{{printf "%s-%d" .Name .State.ExitCode}}', "/web-0"),
        ('{{eq .State.Status "exited" "running"}} {{and true .State.Running}}', "true true"),
        ('{{upper (index .Env 0)}} {{len .Env}} {{(index .Env 1)}}', "A=1 2 B=2"),
        ("{{.Labels.zz}}", "<no value>"),
        ("{{$.Name}}{{/* said */}}", "/web"),
    ],
)  # fmt: skip
def test_a_template_gives(source: str, text: str) -> None:
    assert Template(source).render(VALUE) == text


@pytest.mark.parametrize(
    "source",
    ["{{.Name", "{{.Nope}}", "{{nope .Name}}", "{{if .Name}}x", "{{end}}", "{{else}}", "{{.Name.Deeper}}", "{{$x}}",
     '{{index .Env 9}}', "{{(.Name}}", "{{len 5}}"],
)  # fmt: skip
def test_what_is_no_template_is_told(source: str) -> None:
    with pytest.raises(InvalidArgument, match="template"):
        Template(source).render(VALUE)


@given(st.text(alphabet='{}.|()"$ abNameif range end else json\\%'))
def test_any_text_renders_or_is_refused(source: str) -> None:
    try:
        rendered = Template(source).render(VALUE)
    except InvalidArgument:
        return
    assert isinstance(rendered, str)
