"""The settings file: what it makes, and what it says of mistakes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jsonschema
import pytest
import yaml

from eks_rolling.errors import BadRequest
from eks_rolling.settings import SHORTEST_LEASE, GroupSelection
from eks_rolling_config.file import SET_BY_THE_STACK, Cluster, Described, File, check, read
from eks_rolling_config.options import options
from eks_rolling_config.schema import MODELINE, schema, text
from eks_rolling_config.yaml12 import Loader
from lab.application import SETTINGS as LAB_SETTINGS
from scripts import settings_schema, settings_table
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
        f"  line {surge}: clusters[0].surge: it must be at most 40, not 400",
        "    nodes replaced at the same time; 1 to 40",
        f"  line {bake}: clusters[0].bake_secnds: there is no such setting",
        "    did you mean bake_seconds?",
        f"  line {zone}: clusters[0].windows[0].time_zone: there is no such time zone; names are like Europe/Berlin",
        "    time zone, such as Europe/Berlin",
    ]


def test_what_is_missing_is_told_where_it_should_stand() -> None:
    assert problems(
        """
        clusters:
          - surge: 2
          - cluster: b
            network:
              vpc_id: vpc-0123456789abcdef0
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
        "line 3: clusters[0].bucket: the stack sets it itself\n    remove it"
    ]


def test_what_holds_of_two_settings_together_is_told_at_their_cluster() -> None:
    (problem,) = problems("clusters:\n- cluster: a\n- cluster: b\n  bake_seconds: 4000\n")
    assert problem.startswith(
        "line 3: clusters[1]: deadlines.health_gate (3600) must be longer than bake_seconds (4000)"
    )


def setting(line: str) -> str:
    return f"clusters:\n- cluster: demo\n  {line}\n"


NETWORK = (
    "network: {vpc_id: vpc-0123456789abcdef0, subnet_ids: [subnet-0123456789abcdef0, subnet-0123456789abcdef1], "
    "availability_zones: [eu-central-1a, eu-central-1b]}"
)


@pytest.mark.parametrize("word", ["off", "plan", "roll"])
def test_words_are_words_as_yaml_1_2_has_them(word: str) -> None:
    """Version 1.1 reads `off` as false."""
    clusters, found = check(setting(f"on_change: {word}"))
    assert (found, clusters[0].on_change) == ([], word)


def test_a_time_of_day_needs_no_quotes() -> None:
    """Version 1.1 reads 22:00 as 1320."""
    clusters, found = check(setting("windows: [{start: 22:00, end: 06:30}]"))
    assert found == []
    assert [(w.start, w.end) for w in clusters[0].windows] == [("22:00", "06:30")]


def test_a_finding_of_one_object_can_be_accepted() -> None:
    assert check(setting('accept: ["bare-pod:pod shop/once"]'))[1] == []


@pytest.mark.parametrize("yes", ["true", "yes", "on"])
def test_yes_and_no_are_understood_where_they_are_asked_for(yes: str) -> None:
    assert [c.approval for c in check(setting(f"approval: {yes}"))[0]] == [True]


@pytest.mark.parametrize("name", ["prod_eu", "Prod-1", "0day", "x" * 100])
def test_every_name_that_eks_gives_is_taken(name: str) -> None:
    assert check(f"clusters:\n- cluster: {name}\n")[1] == []


def test_a_network_that_can_be_deployed_is_taken() -> None:
    assert check(setting(NETWORK))[1] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters:\n- cluster: my cluster\n", 'it must look like production, not "my cluster"'),
        ("clusters:\n- cluster: -a\n", 'it must look like production, not "-a"'),
        (f"clusters:\n- cluster: {'x' * 101}\n", "it may have 100 characters at most"),
        (setting(NETWORK.replace("vpc-", "vcp-")), 'it must look like vpc-0123456789abcdef0, not "vcp-'),
        (
            setting(NETWORK.replace("subnet-0123456789abcdef1", "subnet-1")),
            "it must look like subnet-0123456789abcdef0",
        ),
        (setting(NETWORK.replace("eu-central-1b", "eu-central-1")), "it must look like eu-central-1a"),
        (setting(NETWORK.replace("eu-central-1b", "eu-central-1a")), "availability_zones has eu-central-1a twice"),
        (setting(NETWORK.replace("abcdef1", "abcdef0")), "subnet_ids has subnet-0123456789abcdef0 twice"),
        (setting(NETWORK.replace(", eu-central-1b", "")), "subnet_ids has 2 and availability_zones 1 entries"),
        (setting(NETWORK.replace("}", ", https_to: [10.0.0.0/33]}")), "10.0.0.0/33 is no range of addresses"),
        (setting(NETWORK.replace("}", ", redis_to: [10.0.0.1/16]}")), "10.0.0.1/16 is no range of addresses"),
        (setting(NETWORK.replace("}", ", redis_ports: [70000]}")), "it must be at most 65535, not 70000"),
        (setting(NETWORK.replace("}", ", security_group_id: sg}")), "it must look like sg-0123456789abcdef0"),
        (
            setting("accept: [bare-pods]"),
            "no finding that can be accepted is called bare-pods\n    did you mean bare-pod?",
        ),
        (setting("approval: maybe"), 'it must be true or false, not "maybe"'),
        (setting("surge: many"), 'it must be a whole number, not "many"'),
        (setting("surge: 2.5"), "it must be a whole number, not 2.5"),
        (setting("alarms: shop-5xx"), 'it must be a list, not "shop-5xx"'),
        (setting("alarms: [5]"), "it must be text, so put it in quotes, not 5"),
        (
            setting("alarms: ['arn:aws:cloudwatch:eu-central-1:123456789012:alarm:shop-5xx']"),
            "alarms go by their names, not by their ARNs: shop-5xx",
        ),
        (setting("groups: all"), 'it must have settings of its own, each as `name: value`, not "all"'),
        (setting("on_change: false"), "it must be one of off, plan, roll, not false"),
        (setting("on_change: maybe"), 'it must be one of off, plan, roll, not "maybe"'),
        (setting("windows: [{start: 9, end: 10:00}]"), "it must be text, so put it in quotes, not 9"),
        (setting("windows: [{start: 9:00, end: 10:00}]"), 'it must look like 09:00, not "9:00"'),
        (setting("notifications: [ops]"), 'it must look like on-call@example.com, not "ops"'),
        (setting("namespace: Kube_System"), 'it must look like kube-system, not "Kube_System"'),
    ],
)
def test_what_deploying_or_a_roll_would_refuse_is_told_in_plain_words(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert said in problem
    for internal in ("tuple", "regex", "pattern", "^", "valid", "ValueError", "NoneType"):
        assert internal not in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [", "this is not YAML: "),
        ("", "the file describes nothing"),
        ("- a", "the file describes nothing"),
        ("clusters: []", "clusters: it needs at least one entry"),
        ("cluster: a", "cluster: there is no such setting\n    did you mean clusters?"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters:\n- cluster: demo\n\tsurge: 2\n", "line 3: there is a tab\n    indent with spaces"),
        ("clusters:\n- cluster: demo\n  hooks:\n  \t- name: a\n", "line 4: there is a tab\n    indent with spaces"),
        ("clusters:\n- cluster: de\x07mo\n", "line 2: there is a control character, U+0007\n    remove it"),
        ("clusters: [{cluster: demo}]\n---\nclusters: []\n", "line 2: a second document begins"),
        ("clusters:\n- cluster: !Ref Name\n", "line 2: could not determine a constructor for the tag '!Ref'"),
        ("clusters:\n- {[a]: 1}\n", "line 2: found unhashable key"),
        ("clusters: &all\n- cluster: demo\n  groups: *all\n", "an alias stands within its own anchor"),
        ("clusters: " + "[" * 5000, "it is nested too deeply"),
        ("clusters: *nothing\n", "line 1: this is not YAML: found undefined alias"),
        ("clusters:\n- cluster: demo\n  1: 2\n", "names of settings are text, not 1"),
    ],
)
def test_what_yaml_can_do_and_a_settings_file_cannot_is_one_sentence(text: str, said: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "text", ["clusters:\r\n- cluster: demo\r\n  surge: 3\r\n", "clusters: [{cluster: demo, surge: 3}]"]
)
@pytest.mark.parametrize("begins", [b"", b"\xef\xbb\xbf"])
def test_other_ends_of_lines_and_a_mark_of_the_byte_order_change_nothing(
    text: str, begins: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "eks-rolling.yaml"
    file.write_bytes(begins + text.encode())
    assert [(c.cluster, c.surge) for c in read(file)] == [("demo", 3)]


def test_a_file_of_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "eks-rolling.yaml"
    file.write_bytes("clusters: [{cluster: demo}]  # für alle".encode("latin-1"))
    with pytest.raises(BadRequest, match=r"is not UTF-8 text \(byte \d+\): save it as UTF-8"):
        read(file)


def test_what_clusters_have_in_common_may_be_written_once() -> None:
    """By an anchor and a merge key."""
    text = "clusters:\n- &all\n  cluster: a\n  surge: 3\n  windows: []\n- <<: *all\n  cluster: b\n"
    clusters, wrong = check(text)
    assert (wrong, [(c.cluster, c.surge) for c in clusters]) == ([], [("a", 3), ("b", 3)])


def test_a_file_that_is_not_there_says_where_to_begin(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"cannot be read .*eks-rolling\.example\.yaml is one to start from"):
        read(tmp_path / "eks-rolling.yaml")


def test_every_option_has_a_meaning() -> None:
    assert [o.path for o in options(File) if not o.meaning] == []


def test_the_table_of_options_is_current() -> None:
    """`make settings` writes it."""
    text = settings_table.DOCUMENT.read_text()
    assert text == settings_table.written(text)
    assert len(options(File)) - len(SET_BY_THE_STACK) == settings_table.table().count("\n") - 1


def test_the_schema_for_editors_is_current_and_named_by_the_example() -> None:
    """`make settings` writes it."""
    assert settings_schema.DOCUMENT.read_text() == text(), "run: make settings"
    assert EXAMPLE.read_text().startswith(f"{MODELINE}\n")


def test_an_editor_is_told_every_option_that_may_be_set() -> None:
    cluster = schema()["$defs"]["Cluster"]
    assert not SET_BY_THE_STACK & cluster["properties"].keys()
    assert cluster["additionalProperties"] is False
    assert set(cluster["properties"]) == set(Cluster.model_fields) - SET_BY_THE_STACK
    for name, option in cluster["properties"].items():
        assert option.get("description"), name
    assert schema()["$defs"]["OnChange"]["enum"] == ["off", "plan", "roll"]


def test_the_example_is_right_by_the_schema_too() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    document = yaml.load(EXAMPLE.read_text(), Loader)  # noqa: S506 (a SafeLoader)
    assert list(validator.iter_errors(document)) == []
    document["clusters"][0]["surg"] = 3
    assert [error.message for error in validator.iter_errors(document)]


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
        ({}, {"team": ""}, "it has the tag team (setting groups.exclude)"),
        ({}, {"team": "shop"}, "it has the tag team=shop (setting groups.exclude)"),
    ],
)
def test_groups_are_chosen_by_their_tags(include: dict[str, str], exclude: dict[str, str], why: str) -> None:
    assert GroupSelection(include=include, exclude=exclude).left_out_by({"team": "shop"}) == why


def test_a_lab_may_have_a_shorter_lease_than_a_deployment() -> None:
    assert Described.model_validate({"cluster": "demo", **LAB_SETTINGS}).lease_seconds < SHORTEST_LEASE
