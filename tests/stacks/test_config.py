"""The settings file: what it makes, and what it says of mistakes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eks_rolling.errors import BadRequest
from eks_rolling.settings import GroupSelection
from eks_rolling_config.file import SET_BY_THE_STACK, Cluster, File, check, read
from eks_rolling_config.options import options
from scripts import settings_table
from stacks.log_groups import RETENTION

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXAMPLE = REPOSITORY / "eks-rolling.example.yaml"


def problems(text: str) -> list[str]:
    return [str(problem) for problem in check(textwrap.dedent(text).lstrip("\n"))[1]]


def test_the_example_is_right_and_describes_two_clusters() -> None:
    production, staging = read(EXAMPLE)
    assert (production.cluster, production.surge, production.approval) == ("production", 2, True)
    assert production.network is not None
    assert (staging.cluster, staging.network, staging.settings.on_change) == ("staging", None, "plan")


@pytest.mark.heavy
def test_three_mistakes_in_the_example_are_told_at_once_with_line_and_remedy(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    for right, wrong in (
        ("surge: 2", "surge: 400"),
        ("bake_seconds: 120", "bake_secnds: 120"),
        ("Europe/Berlin", "Europe/Bärlin"),
    ):
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    lines = text.splitlines()
    file = tmp_path / "eks-rolling.yaml"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=REPOSITORY,
        env={**os.environ, "CDK_CONTEXT_JSON": f'{{"eks-rolling": "{file}"}}', "CDK_OUTDIR": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    # What jsii says of its own runtime comes as bytes' representations.
    said = [line for line in done.stderr.splitlines() if not line.startswith("b'")]
    surge, bake, zone = (lines.index(next(x for x in lines if w in x)) + 1 for w in ("400", "secnds", "Bärlin"))
    assert said == [
        "eks-rolling.yaml has 3 problems:",
        f"  line {surge}: clusters[0].surge: input should be less than or equal to 40, not 400",
        "    nodes replaced at the same time; 1 to 40",
        f"  line {bake}: clusters[0].bake_secnds: there is no such setting",
        "    did you mean bake_seconds?",
        f"  line {zone}: clusters[0].windows[0].time_zone: there is no such time zone; names are like Europe/Berlin",
        "    whose clock is meant, such as Europe/Berlin",
    ]


def test_what_is_missing_is_told_where_it_should_stand() -> None:
    assert problems(
        """
        clusters:
          - surge: 2
          - cluster: b
            network:
              vpc_id: vpc-1
        """
    ) == [
        "line 2: clusters[0].cluster: it is missing\n    add it: EKS cluster name; not empty",
        "line 4: clusters[1].network.subnet_ids: it is missing\n"
        "    add it: private subnets, one for each zone; not empty",
        "line 4: clusters[1].network.availability_zones: it is missing\n"
        "    add it: the subnets' zones, in their order; not empty",
    ]


def test_a_list_whose_only_entry_is_wrong_is_one_problem() -> None:
    text = "clusters:\n- cluster: a\n  windows:\n  - {start: '09:00', end: '10:00', days: [munday]}\n"
    assert len(problems(text)) == 1


def test_a_cluster_or_a_setting_that_stands_twice_is_told() -> None:
    assert problems(
        """
        clusters:
          - cluster: a
            surge: 2
            surge: 3
          - cluster: a
        """
    ) == [
        "line 4: clusters[0].surge: it is on line 3 already\n    keep one of them",
        "line 5: clusters[1].cluster: a is described twice\n"
        "    describe each cluster once, or say in which account and region each is",
    ]


def test_what_the_stack_sets_itself_is_not_peoples_to_set() -> None:
    assert problems("clusters:\n- cluster: a\n  bucket: mine\n") == [
        "line 3: clusters[0].bucket: the stack sets it by itself\n    remove it"
    ]


def test_what_holds_of_two_settings_together_is_told_at_their_cluster() -> None:
    (problem,) = problems("clusters:\n- cluster: a\n- cluster: b\n  bake_seconds: 4000\n")
    assert problem.startswith(
        "line 3: clusters[1]: deadlines.health_gate (3600) must be longer than bake_seconds (4000)"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [", "this is no YAML: "),
        ("", "the file describes nothing"),
        ("- a", "the file describes nothing"),
        ("clusters: []", "clusters: tuple should have at least 1 item"),
        ("cluster: a", "cluster: there is no such setting\n    did you mean clusters?"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


def test_a_file_that_is_not_there_says_where_to_begin(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"cannot be read .*eks-rolling\.example\.yaml is one to start from"):
        read(tmp_path / "eks-rolling.yaml")


def test_every_option_has_a_meaning() -> None:
    assert [o.path for o in options(File) if not o.meaning] == []


def test_the_table_of_options_is_current() -> None:
    """`make settings-table` writes it."""
    text = settings_table.DOCUMENT.read_text()
    assert text == settings_table.written(text)
    assert len(options(File)) - len(SET_BY_THE_STACK) == settings_table.table().count("\n") - 1


def test_logs_are_kept_as_long_as_cloudwatch_knows_how_to() -> None:
    (option,) = [o for o in options(Cluster) if o.path == "log_retention_days"]
    assert option.allowed == "one of " + ", ".join(map(str, RETENTION))


@pytest.mark.parametrize(
    ("include", "exclude", "why"),
    [
        ({}, {}, ""),
        ({"team": "shop"}, {}, ""),
        ({"team": ""}, {}, ""),
        ({"team": "bank"}, {}, "it lacks the tag team=bank (setting groups.include)"),
        ({"pool": ""}, {}, "it lacks the tag pool (setting groups.include)"),
        ({}, {"team": "bank"}, ""),
        ({}, {"team": ""}, "it carries the tag team (setting groups.exclude)"),
        ({}, {"team": "shop"}, "it carries the tag team=shop (setting groups.exclude)"),
    ],
)
def test_groups_are_chosen_by_their_tags(include: dict[str, str], exclude: dict[str, str], why: str) -> None:
    assert GroupSelection(include=include, exclude=exclude).left_out_by({"team": "shop"}) == why
