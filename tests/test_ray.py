"""The engine on a Ray cluster: a real one, of several nodes on this machine, each with its own way to the stand-in."""

import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

import download
import youtube as stand_in
from conftest import SECRET, Program, proxy_before, wait_for

try:
    from ray.cluster_utils import Cluster
except ImportError:
    Cluster = None
pytestmark = pytest.mark.timeout(900)  # a cluster takes its time to start, and to notice a death
needs_ray = pytest.mark.skipif(not Cluster, reason='RAY IS NOT INSTALLED: pip install -r tests/requirements-all.txt')


@pytest.fixture(scope='module')
def head() -> Iterator['Cluster']:
    """A head that only coordinates, for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        patch.setenv('RAY_worker_niceness', '0')  # by 15, it would starve beside whatever keeps the machine busy
        made = Cluster(initialize_head=True, head_node_args={'num_cpus': 0, 'include_dashboard': False})
        yield made
        made.shutdown()


@pytest.fixture
def cluster(head: 'Cluster', program: Program) -> Iterator['Cluster']:
    """Nodes are added by the tests."""
    program.env['RAY_ADDRESS'] = head.address
    before = head.list_all_nodes()
    yield head
    for node in head.list_all_nodes():
        if node not in before:
            head.remove_node(node)  # gracefully: else the next test takes it for one that is there


def add_node(cluster: 'Cluster', program: Program, door: stand_in.Door) -> object:
    """A node whose requests come by a door of its own, as if it had an address of its own."""
    env = {**program.site.env, 'https_proxy': door.url, 'http_proxy': door.url}
    return cluster.add_node(wait=False, num_cpus=1, env_vars=env)


def start(program: Program, *flags: str) -> subprocess.Popen:
    return program.start('--engine', 'ray', '--num-processes', '3', '--timeout', '15', *flags)  # it may be busy here


def end(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    assert 'Traceback' not in out + err, out + err
    return out, err


@needs_ray
def test_nodes_die_freeze_are_refused_and_join_and_nothing_is_lost_or_doubled(
    program: Program, cluster: 'Cluster', tmp_path: pathlib.Path
) -> None:
    rows = stand_in.rows(60)
    program.offer(*rows)
    program.site.add(rows[5][:11], fault='private')
    program.site.add(rows[8][:11], fault='bot')
    alone = Program(tmp_path / 'alone', program.site)
    alone.run(status=1)
    program.site.latency = 0.05
    dying, freezing, refused, late = doors = [program.site.door() for _ in range(4)]
    nodes = [add_node(cluster, program, door) for door in doors[:3]]
    for door in doors[:3]:
        door.weather = 'bot'  # else the first two may have brought all before the third is there
    process = start(program, '--clip-timeout', '8', '--retries', '1')
    wait_for(lambda: all(door.counts['refused'] for door in doors[:3]), 300)
    dying.weather = freezing.weather = ''
    wait_for(lambda: dying.counts['media'] > 2 and freezing.counts['media'] > 2, 300)
    cluster.remove_node(nodes[0], allow_graceful=False)
    (frozen,) = (
        path.parent
        for path in pathlib.Path('/proc').glob('[0-9]*/cmdline')
        if b'RemoteFetcher' in path.read_bytes() and freezing.url.encode() in (path.parent / 'environ').read_bytes()
    )
    os.kill(int(frozen.name), signal.SIGSTOP)
    left = 60 - len(program.settled)
    add_node(cluster, program, late)
    out, _ = end(process, 1)
    with contextlib.suppress(ProcessLookupError):  # Ray may have ended it
        os.kill(int(frozen.name), signal.SIGKILL)
    assert left > 10, 'they went in the middle'
    assert re.search(r'lost \(silent for 26 s\), \d+ rows come back', out)
    assert len(re.findall(r'lost \(', out)) >= 2
    assert re.search(r'node \S+( \(\w+\))?: YouTube refuses us \(bot check', out)
    assert not refused.counts['media']
    assert late.counts['media'], 'who joins late is used'
    assert re.search(r'done +58\n.*failed +1\n +bot check +1', out, re.S)
    assert program.metadata == alone.metadata
    assert program.reasons == alone.reasons
    assert len(program.settled) == len(program.reasons) == 60
    assert [path.read_bytes() for path in program.clips()] == [path.read_bytes() for path in alone.clips()]
    assert not program.leftovers()


@needs_ray
def test_each_address_brings_what_it_may_and_a_rerun_goes_on(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(50))
    doors = [program.site.door() for _ in range(2)]
    for door in doors:
        door.budget = 6
        add_node(cluster, program, door)
    process = start(program, '--pause', '600', '--longest-pause', '600')
    wait_for(lambda: len(program.clips()) == 12 and all(door.counts['refused'] for door in doors), 300)
    process.terminate()
    end(process, 130)
    assert [len(door.spent) for door in doors] == [6, 6]
    assert len(program.metadata) == 12
    for door in doors:
        door.budget = 0
    program.site.latency = 0.1
    process = start(program)
    wait_for(lambda: len(program.clips()) > 17, 300)
    process.terminate()
    end(process, 130)
    assert 17 < len(program.metadata) == len(program.settled) < 50
    program.site.latency = 0
    end(start(program))
    assert len(program.metadata) == 50


@needs_ray
def test_a_cluster_of_nodes_that_cannot_work_says_why(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(3))
    cluster.add_node(num_cpus=1, env_vars={**program.site.env, 'SSL_CERT_FILE': '/nowhere/ca.pem'})
    out, err = end(start(program), 1)
    assert 'SSL_CERT_FILE = /nowhere/ca.pem: no such file' in out
    assert re.search(r'^stopped: no node can go on \(.*\); 3 rows are left', err, re.M)


@needs_ray
def test_a_cluster_that_is_not_there(program: Program) -> None:
    program.offer(*stand_in.rows(3))
    program.env['RAY_ADDRESS'] = '127.0.0.1:1'
    _, err = end(start(program), 2)
    assert re.search(r'^download.py: ray: .*refused.* \(RAY_ADDRESS=127.0.0.1:1\)$', err, re.M), err


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(download.UsageError, match="engine = 'ray': Ray is not installed; pip install ray"):
        download.read_settings(['--engine', 'ray'])


@needs_ray
def test_nodes_have_doors_of_their_own(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(6))
    door, around = program.site.door(), program.site.door()
    add_node(cluster, program, around)
    with proxy_before(door, 'socks5h', f'me:{SECRET}') as url:
        end(start(program, '--proxies', url))
    assert len(program.metadata) == 6
    assert door.counts['media'] >= 6
    assert not around.counts
