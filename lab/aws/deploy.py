"""Deploys a synthesized cloud assembly into a lab: `python -m lab.aws.deploy LAB CDK_OUT`.

moto's own CloudFormation makes a stack, but not the alarms, access entries and policies in it, and an update of it
replaces topics that have not changed. So this reads the templates itself and makes each resource through its service's
API; deploying again changes what is different. A type of resource that it does not know is an error.
"""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.aws import ACCOUNT_ID
from lab.aws.resources import MAKERS, NOT_MADE, Maker, lab_clients, make_bucket
from lab.aws.template import Json, Made, Template, TemplateError
from lab.paths import LabPaths
from lab.spec import LabSpec

Outputs = dict[str, dict[str, Any]]
_EARLIEST = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class _Stack:
    name: str
    template: Path
    assets: Path | None


def deploy(assembly: Path, *, endpoint: str, region: str, parameters: Mapping[str, str] | None = None) -> Outputs:
    """Makes every stack of the assembly, assets first; answers each stack's outputs.

    `parameters` are values for the templates' own parameters. Raises TemplateError for what the lab cannot deploy,
    botocore's ClientError for what its services refuse.
    """
    outputs: Outputs = {}
    for stack in _stacks(assembly):
        maker = Maker(stack.name, region, lab_clients(endpoint, region))
        values = _pseudo_parameters(stack.name, region) | dict(parameters or {})
        template = Template(json.loads(stack.template.read_text()), values)
        unknown = template.types() - set(MAKERS) - NOT_MADE
        if unknown:
            raise TemplateError(f"stack {stack.name}: the lab knows no {', '.join(sorted(unknown))}")
        if stack.assets is not None:
            layers = {properties["Content"]["S3Key"] for properties in template.of_type("AWS::Lambda::LayerVersion")}
            _publish(maker, assembly, json.loads(stack.assets.read_text()), unused=layers)
        for logical_id, kind, properties in template.resources():
            made = Made(logical_id) if kind in NOT_MADE else MAKERS[kind](maker, logical_id, properties)
            template.made[logical_id] = made
        outputs[stack.name] = template.outputs()
    return outputs


def _pseudo_parameters(stack: str, region: str) -> dict[str, str]:
    return {
        "AWS::AccountId": ACCOUNT_ID,
        "AWS::Partition": "aws",
        "AWS::Region": region,
        "AWS::StackId": f"arn:aws:cloudformation:{region}:{ACCOUNT_ID}:stack/{stack}/lab",
        "AWS::StackName": stack,
        "AWS::URLSuffix": "amazonaws.com",
    }


def _stacks(assembly: Path) -> Iterator[_Stack]:
    """The assembly's stacks, each after those that it depends on."""
    artifacts: Json = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    stacks = {name: a for name, a in artifacts.items() if a["type"] == "aws:cloudformation:stack"}
    done: set[str] = set()
    while stacks:
        ready = [name for name, a in stacks.items() if not set(a.get("dependencies", [])) & (set(stacks) - done)]
        if not ready:
            raise TemplateError(f"the stacks {sorted(stacks)} depend on each other")
        for name in ready:
            artifact = stacks.pop(name)
            done.add(name)
            assets = assembly / f"{name}.assets.json"
            yield _Stack(
                artifact["properties"].get("stackName", name),
                assembly / artifact["properties"]["templateFile"],
                assets if assets.exists() else None,
            )


def _publish(maker: Maker, assembly: Path, manifest: Json, unused: set[str]) -> None:
    """Puts the files of an assets manifest where the templates look for them, but for those whose key is unused."""
    names = _pseudo_parameters(maker.stack, maker.region)
    for asset in manifest.get("files", {}).values():
        source = assembly / asset["source"]["path"]
        for destination in asset["destinations"].values():
            bucket, key = (_fill(destination[field], names) for field in ("bucketName", "objectKey"))
            if key not in unused:
                content = zipped(source) if asset["source"]["packaging"] == "zip" else source.read_bytes()
                make_bucket(maker, bucket)
                maker.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


def _fill(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def zipped(directory: Path) -> bytes:
    """The directory as a zip file that is the same for the same files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(str(file.relative_to(directory)), _EARLIEST)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def main(arguments: list[str] | None = None) -> None:
    """Deploys, and prints the outputs as JSON."""
    parser = argparse.ArgumentParser(prog="lab.aws.deploy", description=__doc__)
    parser.add_argument("lab", type=Path, help="the lab's directory")
    parser.add_argument("assembly", type=Path, help="the directory that `cdk synth` wrote")
    parser.add_argument("--endpoint", default="http://127.0.0.1:4566")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    region = LabSpec.load(LabPaths(given.lab).spec).region
    parameters = dict(pair.split("=", 1) for pair in given.parameter)
    outputs = deploy(given.assembly, endpoint=given.endpoint, region=region, parameters=parameters)
    json.dump(outputs, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
