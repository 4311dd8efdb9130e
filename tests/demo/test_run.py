import signal
import subprocess

import pytest

from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_processes_are_found_signalled_and_ended_by_their_cgroup(laboratory: Laboratory) -> None:
    cgroup = laboratory.names.cgroup
    (cgroup / "below").mkdir(parents=True)
    script = 'echo 0 > "$0/cgroup.procs" && echo && exec sleep 60'
    with subprocess.Popen(["sh", "-c", script, cgroup / "below"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert run.processes(cgroup / "below") == [process.pid]
        assert run.processes(cgroup) == []
        assert run.populated(cgroup)
        assert run.send(cgroup / "below", signal.SIGSTOP) == 1
        run.end(cgroup)
        assert process.wait() == -signal.SIGKILL
    assert not cgroup.exists()


def test_a_cgroup_that_is_not_there_has_no_processes(laboratory: Laboratory) -> None:
    cgroup = laboratory.names.cgroup
    run.end(cgroup)
    assert (run.processes(cgroup), run.populated(cgroup), run.send(cgroup, signal.SIGTERM)) == ([], False, 0)


def test_a_pod_has_its_own_log_and_no_terminal(plain: Laboratory) -> None:
    assert plain.pod_log("near") == "t/near listens on port 8080\n"
    (pid,) = run.processes(plain.names.pod_cgroup("node-1", plain.pod("near").uid))
    with open(f"/proc/{pid}/stat") as stat:
        assert stat.read().rpartition(")")[2].split()[4] == "0"
