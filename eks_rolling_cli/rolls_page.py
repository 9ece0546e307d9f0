"""Every roll of a cluster on one page: what came of each, and the way to its report. Pure: facts in, HTML out.

Nothing is loaded from elsewhere; a card for each roll, so that a phone shows it as well as a desk.
"""

from typing import Any

from jinja2 import Environment, StrictUndefined

from eks_rolling.documents.remedies import way_out
from eks_rolling.wording import counted, moment, spoken

Json = dict[str, Any]

GOOD = frozenset({"replaced", "nothing", "dry-run"})

UNCHANGED = frozenset({"", "dry-run", "blocked", "not-approved"})
"""Outcomes of rolls that never held the lock: what an earlier one left is there still."""


def settles(told: Json) -> bool:
    """Whether what the roll left is what is left of all rolls until then: one that holds the lock takes everything over
    that earlier ones left. No other does; but one that finds nothing to do has found nothing left, and what a restore
    says of a roll that was stopped is so whether that could tell that it had got the lock or not."""
    if told["held_lock"] is None:
        return told["outcome"] not in UNCHANGED
    return bool(told["held_lock"] or told["left_behind"] or told["outcome"] == "nothing")


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rolls of {{ cluster }}</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2024; --line: #8884; --good: #18794e; --bad: #b4232a;
  --soft: #60646c; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #111418; --ink: #edeef0; --good: #4cc38a; --bad: #ff9592; --soft: #b0b4ba; --link: #70b8ff; }
}
html { background: var(--paper); color: var(--ink); }
a { color: var(--link); }
body { background: var(--paper); font: 16px/1.45 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: .5rem; }
h1 { font-size: 1.3rem; }
article { border-top: 1px solid var(--line); padding: .75rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0; }
p { margin: .2rem 0; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
code { font-size: .9em; }
</style>
</head>
<body>
<main>
<h1>Rolls of {{ place }}</h1>
<p class="soft">The latest {{ counted(rolls | length, "roll") }}, newest first, as of {{ made }}</p>
{% for roll in rolls %}
<article>
<h2><span class="{{ roll.style }}">{{ roll.outcome }}</span>
{% if roll.report %}<a href="{{ roll.report }}">{{ roll.name }}</a>{% else %}{{ roll.name }}{% endif %}</h2>
<p class="soft">{{ roll.facts | join(" · ") }}</p>
{% if roll.reason %}<p>{{ roll.reason }}</p>{% endif %}
{% for left in roll.left_behind %}<p class="bad">left behind: {{ left }}</p>{% endfor %}
{% if roll.left_behind and roll.last %}
<p>→ {% for part in remedy %}
{% if loop.index is even %}<code>{{ part }}</code>{% else %}{{ part }}{% endif %}
{% endfor %}
</p>
{% endif %}
</article>
{% else %}
<p>There has been no roll yet.</p>
{% endfor %}
</main>
</body>
</html>
"""


def page(cluster: str, place: str, found: list[Json], made: float, start: str) -> str:
    """The page of rolls as `rolls --json` has them; `made` is when, in epoch seconds, `start` the command that starts a
    roll of this cluster."""
    last = next((each["roll"] for each in found if settles(each)), "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        cluster=cluster,
        place=place,
        rolls=[_card(each, made) | {"last": each["roll"] == last} for each in found],
        made=moment(made),
        remedy=way_out(start).split("`"),
        counted=counted,
    )


def _card(told: Json, now: float) -> Json:
    outcome = str(told["outcome"] or told["status"].lower())
    good = outcome in GOOD and not told["left_behind"]
    style = "soft" if told["status"] == "RUNNING" else "good" if good else "bad"
    lasted = spoken((told["ended"] or now) - told["began"])
    facts = [f"began {moment(told['began'])}", f"took {lasted}" if told["ended"] else f"running for {lasted}"]
    if told["planned"]:
        facts.append(f"{told['replaced']} of {told['planned']} nodes replaced")
    if told["longest_stall_ms"] is not None:
        facts.append(f"longest stall of writes {told['longest_stall_ms']:,} ms")
    return {
        "name": told["roll"], "outcome": outcome, "style": style, "facts": facts, "reason": told["reason"],
        "left_behind": told["left_behind"], "report": told["report"],
    }  # fmt: skip
