"""What deploy/ and .github/ say is what the programs take, and what those who read it expect."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bertjax import cli
from tests.dockerfile import instructions_of

ROOT = Path(__file__).parents[1]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))
DEPLOY, WORKFLOWS = ROOT / "deploy", sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def image_command():
    image = instructions_of(DEPLOY / "Dockerfile")[-1]
    return json.loads(image["ENTRYPOINT"][0]) + json.loads(image["CMD"][0])


def pod():
    (deployment,) = [
        one
        for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
        if one["kind"] == "Deployment"
    ]
    return deployment["spec"]["template"]["spec"]


def unit():
    return dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "bertjax.service").read_text(), re.M))


@pytest.mark.parametrize(
    "words",
    [
        image_command(),
        ["bertjax", *pod()["containers"][0]["args"]],
        shlex.split(unit()["ExecStart"]),
    ],
    ids=["Dockerfile", "kubernetes.yaml", "bertjax.service"],
)
def test_command_is_one_of_the_program(words):
    _, unknown = cli.make_parser().parse_known_args(words[1:])
    assert (words[0].rpartition("/")[2], words[1], unknown) == ("bertjax", "serve", [])


def test_what_is_copied_into_the_image_is_there():
    sources = [
        word
        for stage in instructions_of(DEPLOY / "Dockerfile")
        for line in stage.get("COPY", [])
        if not line.startswith("--from")
        for word in line.split()[:-1]
    ]
    assert sources
    assert all((ROOT / word).exists() for word in sources)


def test_image_and_pod_are_nobody_in_particular():
    user = instructions_of(DEPLOY / "Dockerfile")[-1]["USER"]
    assert user == [str(pod()["securityContext"]["runAsUser"])]
    assert user != ["0"]


def test_pods_outlive_the_calls_that_they_have_taken():
    options, _ = cli.make_parser().parse_known_args(["serve", "--model", "x"])
    timeout = options.request_timeout
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    grace = compose["services"]["bertjax"]["stop_grace_period"]
    assert pod()["terminationGracePeriodSeconds"] > timeout
    assert int(grace.removesuffix("s")) > timeout
    assert int(unit()["TimeoutStopSec"]) > timeout


def test_autoscaler_reads_a_metric_that_the_server_has():
    text = (DEPLOY / "kubernetes.yaml").read_text()
    (name,) = re.findall(r"metric: \{name: (\w+)\}", text)
    assert f'"{name}"' in (ROOT / "bertjax" / "serving" / "metrics.py").read_text()


def test_probes_ask_a_port_and_a_route_of_the_server():
    container = pod()["containers"][0]
    assert container["ports"][0]["containerPort"] == 3000
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


# ------------------------------------------------------------------ by those who read them


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("check_jsonschema") is None, reason="`make test-deploy` installs it"
)
@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.compose-spec", DEPLOY / "compose.yaml"),
        *(("vendor.github-workflows", path) for path in WORKFLOWS),
    ],
)
def test_file_is_of_its_schema(schema, path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(HADOLINT is None, reason="`make test-deploy` installs it")
def test_image_file_has_no_fault_that_is_known():
    done = subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="`make test-deploy` installs it"
)
def test_manifests_are_of_the_schema_of_kubernetes():
    import kubernetes_validate

    for manifest in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_unit_is_one_that_systemd_takes(tmp_path):
    text = (DEPLOY / "bertjax.service").read_text()
    program = tmp_path / "bertjax"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "bertjax.service"
    path.write_text(text.replace("/opt/bertjax/bin/bertjax", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
