"""The engine on a Ray cluster: a real one, of several nodes on this machine, each with its own way to the stand-in."""

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
from conftest import Program, wait_for

try:
    from ray.cluster_utils import Cluster
except ImportError:
    Cluster = None
pytestmark = pytest.mark.timeout(400)  # a cluster takes its time to start, and to notice a death
needs_ray = pytest.mark.skipif(not Cluster, reason='RAY IS NOT INSTALLED: pip install -r tests/requirements-all.txt')


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator['Cluster']:
    """A head that only coordinates; nodes are added by the tests."""
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    made = Cluster(initialize_head=True, head_node_args={'num_cpus': 0, 'include_dashboard': False})
    monkeypatch.setenv('RAY_ADDRESS', made.address)
    yield made
    made.shutdown()


def add_node(cluster: 'Cluster', program: Program, door: stand_in.Door) -> object:
    """A node whose requests come by a door of its own, as if it had an address of its own."""
    return cluster.add_node(num_cpus=1, env_vars={**program.site.env, 'https_proxy': door.url, 'http_proxy': door.url})


def start(program: Program, *flags: str) -> subprocess.Popen:
    program.env['RAY_ADDRESS'] = os.environ['RAY_ADDRESS']
    return program.start('--engine', 'ray', '--num-processes', '3', *flags)


def end(process: subprocess.Popen, status: int = 0) -> str:
    out, err = process.communicate(timeout=200)
    assert process.returncode == status, out + err
    assert 'Traceback' not in out + err, out + err
    return out


@needs_ray
def test_a_node_dies_and_another_joins_and_nothing_is_lost_or_doubled(
    program: Program, cluster: 'Cluster', tmp_path: pathlib.Path
) -> None:
    rows = stand_in.rows(90)
    program.offer(*rows)
    program.site.add(rows[5][:11], fault='private')
    alone = Program(tmp_path / 'alone', program.site)
    alone.run()
    program.site.latency = 0.05
    doors = [program.site.door() for _ in range(3)]
    nodes = [add_node(cluster, program, door) for door in doors[:2]]
    process = start(program)
    wait_for(lambda: all(door.counts['media'] > 10 for door in doors[:2]))
    cluster.remove_node(nodes[0], allow_graceful=False)
    left = 90 - len(program.settled)
    add_node(cluster, program, doors[2])
    out = end(process)
    assert re.search(r'node \S+ \(\w+\): lost \(.+\), \d+ rows come back', out)
    assert left > 20, 'it died in the middle'
    assert doors[2].counts['media'], 'who joins late is used'
    assert program.metadata.keys() == alone.metadata.keys()
    assert program.metadata == {key: alone.metadata[key] for key in program.metadata}
    assert len(program.settled) == len(program.reasons) == 90
    assert [path.read_bytes() for path in program.clips()] == [path.read_bytes() for path in alone.clips()]
    assert not program.leftovers()
    assert '90 settled (89 done), 0 to do' in program.run().stdout


@needs_ray
def test_a_throttled_node_gives_its_rows_to_the_others(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(60))
    doors = [program.site.door() for _ in range(2)]
    doors[0].weather = 'bot'
    for door in doors:
        add_node(cluster, program, door)
    out = end(start(program, '--pause', '600', '--longest-pause', '600'))
    assert len(program.metadata) == 60
    assert re.search(r'node \S+ \(\w+\): YouTube refuses us \(bot check', out)
    assert doors[1].counts['player'] >= 60


@needs_ray
@pytest.mark.parametrize('addresses', [1, 2])
def test_each_address_brings_what_it_may(program: Program, cluster: 'Cluster', addresses: int) -> None:
    program.offer(*stand_in.rows(24))
    doors = [program.site.door() for _ in range(addresses)]
    for door in doors:
        door.budget = 6
        add_node(cluster, program, door)
    end(start(program, '--pause', '600', '--longest-pause', '600', '--give-up-after', '2'), 1)
    assert [door.counts['media'] > 0 for door in doors] == [True] * addresses
    assert len(program.metadata) == 6 * addresses


@needs_ray
def test_a_cluster_of_nodes_that_cannot_work_says_why(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(3))
    cluster.add_node(num_cpus=1, env_vars={**program.site.env, 'SSL_CERT_FILE': '/nowhere/ca.pem'})
    process = start(program)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert 'SSL_CERT_FILE = /nowhere/ca.pem: no such file' in out
    assert re.search(r'^stopped: no node can go on \(.*\); 3 rows are left', err, re.M)


@needs_ray
def test_a_row_that_is_always_refused_does_not_stop_the_cluster(program: Program, cluster: 'Cluster') -> None:
    rows = stand_in.rows(12)
    program.offer(*rows)
    program.site.add(rows[3][:11], fault='bot')
    for _ in range(2):
        add_node(cluster, program, program.site.door())
    out = end(start(program, '--retries', '1', '--give-up-after', '60'), 1)
    assert re.search(r'done +11\n.*failed +1\n +bot check +1', out, re.S)
    assert len(program.metadata) == 11


@needs_ray
def test_a_node_that_freezes_loses_its_rows(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.1
    doors = [program.site.door() for _ in range(2)]
    for door in doors:
        add_node(cluster, program, door)
    process = start(program, '--clip-timeout', '3')
    wait_for(lambda: all(door.counts['media'] > 4 for door in doors))
    (frozen,) = (
        path.parent
        for path in pathlib.Path('/proc').glob('[0-9]*/cmdline')
        if b'RemoteFetcher' in path.read_bytes() and doors[0].url.encode() in (path.parent / 'environ').read_bytes()
    )
    os.kill(int(frozen.name), signal.SIGSTOP)
    assert re.search(r'lost \(silent for 16 s\), \d+ rows come back', end(process))
    assert len(program.metadata) == len(program.settled) == 40


@needs_ray
def test_nodes_that_hear_nothing_but_no_give_up(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(5))
    program.site.weather = 'bot'
    add_node(cluster, program, program.site.main_door)
    process = start(program, '--give-up-after', '2')
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert re.search(r'^stopped: nothing came through for \d+ s \(bot check', err, re.M)


@needs_ray
def test_ctrl_c_and_resuming(program: Program, cluster: 'Cluster') -> None:
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.1
    add_node(cluster, program, program.site.main_door)
    process = start(program)
    wait_for(lambda: len(program.clips()) > 5)
    process.terminate()
    end(process, 130)
    assert 5 < len(program.metadata) == len(program.settled) < 40
    program.site.latency = 0
    end(start(program))
    assert len(program.metadata) == 40


@needs_ray
def test_a_cluster_that_is_not_there(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.offer(*stand_in.rows(3))
    monkeypatch.setenv('RAY_ADDRESS', '127.0.0.1:1')
    process = start(program)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 2, out + err
    assert re.search(r'^download.py: ray: .*refused.* \(RAY_ADDRESS=127.0.0.1:1\)$', err, re.M), err
    assert 'Traceback' not in err


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(download.UsageError, match="engine = 'ray': Ray is not installed; pip install ray"):
        download.read_settings(['--engine', 'ray'])
