"""The files that start a run on clusters, as far as they can be checked without one."""

import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest
import yaml

from bertjax.program.config_fields import flat_fields
from bertjax.program.config_parser import parse
from bertjax.training.pretrain_config import PretrainConfig
from tests.train.pretrain_runs import WAY

LAUNCH = WAY / "train" / "launch"
SCRIPTS = ["local.sh", "tpu_vm.sh", "slurm.sbatch"]
ARGUMENTS = ["--config", "configs/pretrain/base.yaml", "--data", "some rows", "--run", "runs/x"]


def print_commands(script, *arguments, **environment):
    done = subprocess.run(
        [LAUNCH / script, "--print", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **environment},
    )
    return [shlex.split(line) for line in done.stdout.splitlines()]


def read_arguments(words):
    """The config that the words behind `train.pretrain` make."""
    return parse(PretrainConfig, "", words[words.index("train.pretrain") + 1 :])


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_well_formed(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", LAUNCH / name], check=True)


def test_local_processes_know_of_each_other():
    commands = print_commands("local.sh", "3", *ARGUMENTS, DEVICES="2")
    assert len(commands) == 3
    addresses = set()
    for index, words in enumerate(commands):
        assert f"JAX_PROCESS_ID={index}" in words
        assert {"JAX_NUM_PROCESSES=3", "JAX_NUM_CPU_DEVICES=2", "JAX_PLATFORMS=cpu"} <= {*words}
        addresses |= {word for word in words if word.startswith("JAX_COORDINATOR_ADDRESS=")}
        config = read_arguments(words)
        assert (config.data, config.distributed) == ("some rows", True)
    (address,) = addresses
    assert re.fullmatch(r"JAX_COORDINATOR_ADDRESS=127.0.0.1:\d+", address)


@pytest.mark.parametrize("count", ["0", "two", "--config"])
def test_local_refuses_what_is_no_number(count):
    done = subprocess.run([LAUNCH / "local.sh", count], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_local_refuses_a_port_that_cannot_be_had():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for port in (str(server.getsockname()[1]), "http", "99999999"):
            done = subprocess.run(
                [LAUNCH / "local.sh", "--print", "2"],
                capture_output=True,
                text=True,
                env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PORT": port},
            )
            assert (done.returncode, done.stdout) == (2, "")
            assert f"PORT={port} is no port that is free" in done.stderr


def test_local_refuses_devices_that_are_no_number():
    done = subprocess.run(
        [LAUNCH / "local.sh", "--print", "2"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "DEVICES": "many"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "DEVICES=many must be" in done.stderr


def run_three_locally(folder, one, others):
    """local.sh with stand-ins for process 1 and for the two others, lines of sh."""
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" != -c ] || exec {shlex.quote(sys.executable)} "$@"\n'
        f'[ "$JAX_PROCESS_ID" != 1 ] || {one}\n{others}\n'
    )
    python.chmod(0o755)
    return subprocess.run(
        [LAUNCH / "local.sh", "3", *ARGUMENTS],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
    )


@pytest.mark.slow
def test_local_processes_do_not_wait_long_for_one_that_never_joined(tmp_path):
    done = run_three_locally(tmp_path, "exit 3", "exec sleep 300")
    assert done.returncode == 3, done.stderr
    assert "have not ended, and are killed: process 0 2\n" in done.stderr
    assert [f"process {index} of 3 ended with" in done.stderr for index in range(3)] == 3 * [True]


@pytest.mark.slow
def test_local_processes_that_are_stopped_save_in_their_own_time(tmp_path):
    done = run_three_locally(tmp_path, "exit 75", "sleep 25; exit 75")
    assert done.returncode == 75, done.stderr
    assert "killed" not in done.stderr


def run_in(folder, programs, command, **environment):
    """Runs a command in a folder, where `programs` (name -> text for sh) stand in for others."""
    (folder / "bin").mkdir()
    for name, text in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    path = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=path | environment
    )


@pytest.mark.parametrize(
    ("version", "made_with"), [("3.10", "/uv/python3.12"), ("3.11", "python3"), ("3.14", "python3")]
)
def test_tpu_hosts_get_a_python_that_is_new_enough(tmp_path, version, made_with):
    *_, install = print_commands("tpu_vm.sh", "install", NAME="pod", ZONE="us-a")
    number = tuple(map(int, version.split(".")))
    real = f"{shlex.quote(sys.executable)} -c 'import sys; sys.version_info = {number}'"
    python = f"""\
[ "$1" != -c ] || exec {real}"; $2"
[ "$*" != "-m uv python find --system 3.12" ] || echo /uv/python3.12"""
    programs = {"python3": python, "make": 'echo "$@"', "tar": "mkdir -p bertjax/.venv/bin"}
    command = install[install.index("--command") + 1].partition(" && .venv/bin/uv ")[0]
    done = run_in(tmp_path, programs, ["sh", "-c", command])
    assert done.stdout.split() == ["install", f"PYTHON={made_with}"], done.stderr
    assert ("older than 3.11" in done.stderr) == (version == "3.10")


# srun as its manual has it, of two processes: with --kill-on-bad-exit=1, or without it where the
# cluster is set up so, the first that ends with an error has the other killed; the highest code is
# the end's.
SRUN = """\
sleep 0.5 && exit $SECOND & second=$!
case "$*" in *--kill-on-bad-exit=0*) ;; *) [ $FIRST = 0 ] || kill -KILL $second ;; esac
wait $second
code=$?
[ $FIRST -gt $code ] && exit $FIRST
exit $code"""


@pytest.mark.parametrize(
    ("codes", "code", "queued"),
    [((75, 75), 75, True), ((0, 0), 0, False), ((2, 76), 76, False), ((75, 137), 137, False)],
)
def test_slurm_job_that_was_stopped_is_queued_again(tmp_path, codes, code, queued):
    programs = {"srun": SRUN, "scontrol": 'echo "$@"'}
    environment = {"FIRST": str(codes[0]), "SECOND": str(codes[1]), "SLURM_JOB_ID": "17"}
    command = ["bash", LAUNCH / "slurm.sbatch", *ARGUMENTS]
    done = run_in(tmp_path, programs, command, **environment)
    assert (done.returncode, done.stdout) == (code, "requeue 17\n" if queued else "")


def test_slurm_script_asks_for_a_process_a_gpu_and_for_the_signal():
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.M))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("TERM@")
    (srun,) = re.findall(r"^srun .*$", text, re.M)
    words = shlex.split(srun.replace('"$@"', shlex.join(ARGUMENTS)))
    assert read_arguments(words).distributed


def test_jobset_pods_know_of_each_other():
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completionMode"] == "Indexed"  # which numbers the pods
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    environment = {one["name"]: one for one in container["env"]}
    count = int(environment["JAX_NUM_PROCESSES"]["value"])
    assert job["parallelism"] == job["completions"] == count
    host, port = environment["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    name = jobset["metadata"]["name"]
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert [{"containerPort": int(port)}] == container["ports"]
    index = environment["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert read_arguments(container["command"]).distributed
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_head_comments_name_options_that_there_are():
    fields = {name for name, _ in flat_fields(PretrainConfig)} | {"config"}
    for path in LAUNCH.iterdir():
        for line in path.read_text().splitlines():
            if line.startswith("#   ") and "--run " in line:
                behind = line[line.index("--config") :]
                assert {word[2:] for word in behind.split() if word.startswith("--")} <= fields
