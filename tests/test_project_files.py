"""The files of the repository that its host reads: workflows, templates, hooks."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9-]+)(?= |:)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read(path):
    """A workflow; YAML 1.1 takes the key `on` for a boolean."""
    workflow = yaml.safe_load(path.read_text())
    workflow["on"] = workflow.pop(True)
    return workflow


def steps():
    """Each step of each workflow."""
    for path in WORKFLOWS:
        for job in read(path)["jobs"].values():
            yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_more_rights_than_its_jobs_need(path):
    """Its own may read; a job that may write says so itself, and each job ends."""
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        if "write" in job.get("permissions", {}).values():
            assert "pull_request" not in workflow["on"]


def test_every_make_target_of_a_workflow_is_real():
    """And every other command starts a file of the repository or of `.venv`."""
    named = {words[1] for words in commands() if words[0] == "make"}
    assert {"lint", "test-fast", "test-lowest", "docs", "build"} <= named <= TARGETS
    for words in commands():
        if words[0] == "bash":
            assert (ROOT / words[1]).is_file()
        else:
            assert words[0] in ("make", ".venv/bin/uv")


def commands():
    """The words of each line that a workflow runs."""
    for step in steps():
        for line in step.get("run", "").splitlines():
            yield shlex.split(line)


def test_every_action_is_pinned():
    """By the hash of a commit, or by a major version; a checkout leaves no credentials behind."""
    for step in steps():
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@([0-9a-f]{40}|v\d+)", step["uses"])
            if step["uses"].startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_the_fast_tests_run_on_each_python_that_the_package_declares():
    """Neither more nor fewer."""
    declared = re.findall(r'Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    workflow = read(ROOT / ".github/workflows/checks.yml")
    assert workflow["jobs"]["fast-tests"]["strategy"]["matrix"]["python"] == declared


def test_every_hook_runs_what_lint_runs():
    """A commit that passes the hooks passes `make lint`."""
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {tuple(hook["entry"].split()[:2]) for hook in repository["hooks"]}
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lint = {
        tuple(line.strip("\t@").replace("$(BIN)", ".venv/bin").split()[:2])
        for line in recipe.splitlines()
    }
    assert {words[0] for words in hooks} == {words[0] for words in lint}
    assert len(hooks) == len(lint)


def test_a_report_of_a_bug_is_asked_for_no_secret():
    """The form names what is never to be pasted, and leads a vulnerability elsewhere."""
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    warning = form["body"][0]["attributes"]["value"]
    assert "Never paste a token" in warning
    assert "SECURITY.md" in warning
    assert (ROOT / "SECURITY.md").exists()
