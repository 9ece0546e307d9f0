"""Reading CloudFormation templates."""

from typing import Any

import pytest

from lab.aws.template import Made, Template, TemplateError


def template(**content: Any) -> Template:
    return Template(content, {"AWS::Region": "eu-central-1", "AWS::Partition": "aws"})


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ({"Ref": "AWS::Region"}, "eu-central-1"),
        ({"Ref": "Size"}, "3"),
        ({"Ref": "Bucket"}, "the-bucket"),
        ({"Fn::GetAtt": ["Bucket", "Arn"]}, "arn:bucket"),
        ({"Fn::GetAtt": "Bucket.Arn"}, "arn:bucket"),
        ({"Fn::Join": ["-", ["a", {"Ref": "AWS::Region"}]]}, "a-eu-central-1"),
        ({"Fn::Sub": "${AWS::Region}/${Bucket.Arn}/${!left}"}, "eu-central-1/arn:bucket/${left}"),
        ({"Fn::Sub": ["${x}", {"x": {"Ref": "Bucket"}}]}, "the-bucket"),
        ({"Fn::Select": [1, {"Fn::Split": [",", "a,b"]}]}, "b"),
        ({"Fn::If": ["Small", "s", "l"]}, "s"),
        ({"Fn::If": ["Large", "l", {"Fn::Base64": "s"}]}, "cw=="),
        ({"Fn::FindInMap": ["Names", {"Ref": "AWS::Region"}, "short"]}, "fra"),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [1, {"Ref": "AWS::NoValue"}]}, {"b": [1]}),
    ],
)
def test_functions_resolve_to(value: Any, resolved: Any) -> None:
    read = template(
        Parameters={"Size": {"Default": "3"}},
        Conditions={
            "Small": {"Fn::Equals": [{"Ref": "Size"}, "3"]},
            "Large": {"Fn::And": [{"Fn::Not": [{"Condition": "Small"}]}, {"Condition": "Small"}]},
        },
        Mappings={"Names": {"eu-central-1": {"short": "fra"}}},
    )
    read.made["Bucket"] = Made("the-bucket", {"Arn": "arn:bucket"})
    assert read.resolve(value) == resolved


@pytest.mark.parametrize(
    "value", [{"Ref": "Nothing"}, {"Fn::GetAtt": ["Nothing", "Arn"]}, {"Fn::ImportValue": "x"}, {"Fn::Sub": "${No}"}]
)
def test_what_is_not_there_is_an_error(value: Any) -> None:
    with pytest.raises(TemplateError):
        template().resolve(value)


def test_resources_come_after_what_they_refer_to_and_without_those_whose_condition_is_false() -> None:
    read = template(
        Conditions={"Never": {"Fn::Equals": ["a", "b"]}},
        Resources={
            "Rule": {"Type": "Rule", "Properties": {"Target": {"Fn::GetAtt": ["Machine", "Arn"]}}},
            "Machine": {"Type": "Machine", "Properties": {"Text": {"Fn::Sub": "${Topic}"}}, "DependsOn": "Policy"},
            "Policy": {"Type": "Policy"},
            "Topic": {"Type": "Topic", "Properties": {"Name": "t"}},
            "Odd": {"Type": "Odd", "Condition": "Never"},
        },
    )
    order = []
    for logical_id, kind, properties in read.resources():
        order.append(logical_id)
        read.made[logical_id] = Made(f"the {kind.lower()}", {"Arn": f"arn:{kind}"})
        if kind == "Rule":
            assert properties == {"Target": "arn:Machine"}
        if kind == "Machine":
            assert properties == {"Text": "the topic"}
    assert sorted(order) == ["Machine", "Policy", "Rule", "Topic"]
    assert order.index("Topic") < order.index("Machine") < order.index("Rule")
    assert order.index("Policy") < order.index("Machine")


def test_outputs_and_given_parameters() -> None:
    read = Template(
        {"Parameters": {"Size": {"Default": "3"}}, "Outputs": {"Size": {"Value": {"Ref": "Size"}}}}, {"Size": "4"}
    )
    assert read.outputs() == {"Size": "4"}
