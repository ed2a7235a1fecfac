"""Routes that yt-dlp and ffmpeg cannot take by themselves: SOCKS, https, ssh and logins, by a door on loopback."""

import asyncio
import base64
import contextlib
import importlib.util
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

import download
import youtube as stand_in
from conftest import SECRET, Program, is_open, kill_session, may_mount, processes_of, proxy_before, wait_for

SSHD = shutil.which('sshd') or shutil.which('/usr/sbin/sshd')
NAMES = ['www.youtube.com', urllib.parse.urlsplit(stand_in.MEDIA).hostname, 'storage.googleapis.com']  # of the site


def ask(address: str, to: str = 'www.youtube.com:443', login: str | None = None) -> str:
    """The first line of what the door answers to a request for a connection."""
    at = urllib.parse.urlsplit(address)
    token = base64.b64encode((login or f'{at.username}:{at.password}').encode()).decode()
    with socket.create_connection((at.hostname, at.port), 60) as door:
        door.sendall(f'CONNECT {to} HTTP/1.1\r\nProxy-Authorization: Basic {token}\r\n\r\n'.encode())
        return door.makefile().readline().strip()


@pytest.fixture
def way(site: stand_in.YouTube, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A way to have a door lead by a proxy: the address at which it does."""
    monkeypatch.setenv('SSL_CERT_FILE', str(site.ca))
    return lambda proxy: download.Door(5, []).add(*download.read_proxy(proxy))


# -------------------------------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ('kind', 'login'),
    [
        pytest.param('socks5h', '', id='socks5h'),
        pytest.param('socks5h', f'me:{SECRET}', id='socks5h with a login'),
        pytest.param('http', f'me:{SECRET}', id='http with a login'),
        pytest.param('https', f'me:{SECRET}', id='https with a login'),
    ],
)
def test_clips_come_by_proxies_of_all_kinds(program: Program, kind: str, login: str) -> None:
    program.offer(*stand_in.rows(4))
    door = program.site.door(login=login, tls=True) if kind == 'https' else program.site.door()
    with contextlib.nullcontext(door.url) if kind == 'https' else proxy_before(door, kind, login) as url:
        said = program.run('--proxies', url)
    assert len(program.metadata) == 4
    assert door.counts['player'] >= 4
    assert door.counts['media'] >= 4
    assert not program.site.main_door.counts
    assert SECRET not in said.stdout + said.stderr


def test_the_proxy_of_the_environment_may_be_socks(program: Program) -> None:
    program.offer(*stand_in.rows(2))
    door = program.site.door()
    with proxy_before(door, 'socks5h') as url:
        program.env['https_proxy'] = url
        program.run()
    assert len(program.metadata) == 2
    assert not program.site.main_door.counts


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_a_login_is_in_nobodys_environment(program: Program) -> None:
    program.offer(*stand_in.rows(1))
    program.site.healthy.fault = 'media stall'
    door = program.site.door(login=f'me:{SECRET}')
    program.edit('proxies: list[str] = []', f'proxies: list[str] = [{door.url!r}]')
    process = program.start('--timeout', '60')
    wait_for(lambda: door.counts['media'])
    told = [pathlib.Path(f'/proc/{pid}/environ').read_bytes() for pid in processes_of(process.pid)]
    kill_session(process)
    assert any(b'http_proxy=http://door:' in environment for environment in told)
    assert not any(SECRET.encode() in environment for environment in told)


@pytest.mark.parametrize('fate', ['dead', 'hangs after the greeting', 'refuses the login'])
def test_one_of_three_is_closed_with_the_reason_in_words(program: Program, fate: str) -> None:
    program.offer(*stand_in.rows(20))
    doors = [program.site.door() for _ in range(3)]
    with contextlib.ExitStack() as held:
        good = [held.enter_context(proxy_before(door, 'socks5h')) for door in doors[:2]]
        bad, said = 'socks5h://127.0.0.1:9', "Couldn't connect to proxy"
        if fate == 'refuses the login':
            bad, said = doors[2].url.replace('//', '//who:knows@'), '407 Proxy Authentication Required'
            doors[2].login = 'me'
        elif fate != 'dead':
            bad = f'socks5h://127.0.0.1:{held.enter_context(silent_server())}'
            said = 'no answer in time'
        out = program.run('--proxies', *good, bad, '--pause', '1').stdout
    name = bad.rpartition('@')[2].rpartition('/')[2]
    assert f'{name}: every row fails (route: no way by {name}: ' in out
    assert said in out
    assert len(program.metadata) == 20


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of a SOCKS5 server that says no word after its greeting."""

    def greet(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            while True:
                client = held.enter_context(listener.accept()[0])
                client.recv(100)
                client.sendall(b'\x05\x00')

    with socket.create_server(('127.0.0.1', 0)) as listener:
        threading.Thread(target=greet, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_an_upstream_that_dies_is_tried_again(program: Program) -> None:
    program.offer(*stand_in.rows(60))
    program.site.latency = 0.05
    doors = [program.site.door() for _ in range(2)]
    with proxy_before(doors[0], 'socks5h') as steady, contextlib.ExitStack() as held:
        url = held.enter_context(proxy_before(doors[1], 'socks5h'))
        process = program.start('--proxies', steady, url, '--pause', '1', '--longest-pause', '1')
        wait_for(lambda: doors[1].counts['media'])
        held.close()
        came = doors[1].counts['media']
        wait_for(lambda: len(program.clips()) > 10)
        with proxy_before(doors[1], 'socks5h', port=urllib.parse.urlsplit(url).port):
            out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert len(program.metadata) == 60
    assert doors[1].counts['media'] > came


# ------------------------------------------------------------------------------------------------------------- the door


def test_the_door_lets_in_nobody_else(way: Callable[[str], str], site: stand_in.YouTube) -> None:
    address = way(site.door(login='me:too').url)
    assert urllib.parse.urlsplit(address).hostname == '127.0.0.1'
    assert ask(address).startswith('HTTP/1.1 200')
    assert ask(address, login='door:stranger').startswith('HTTP/1.1 407')


@pytest.mark.parametrize('host', ['example.org', 'youtube.com.example.org', 'notyoutube.com', '127.0.0.1'])
def test_the_door_leads_to_youtube_only_and_says_so(
    way: Callable[[str], str], site: stand_in.YouTube, host: str
) -> None:
    assert re.match(f'HTTP/1.1 403 .*{host}:443', ask(way(site.door(login='me:too').url), f'{host}:443'))


@pytest.mark.parametrize('host', [*NAMES, 'raw.githubusercontent.com', 'youtube.com'])
def test_the_door_leads_to_youtube_and_the_lists(way: Callable[[str], str], site: stand_in.YouTube, host: str) -> None:
    assert ask(way(site.door(login='me:too').url), f'{host}:443').startswith('HTTP/1.1 200')


@pytest.mark.parametrize(
    ('kind', 'login', 'seen'),
    [
        pytest.param('socks4', '', '127.7.7.7', id='socks4, here'),
        pytest.param('socks5', '', '127.7.7.7', id='socks5, here'),
        pytest.param('socks5h', '', 'www.youtube.com', id='socks5h, there'),
        pytest.param('http', 'me:too', 'www.youtube.com', id='http, there'),
    ],
)
def test_names_are_looked_up_as_curl_has_it(
    way: Callable[[str], str], site: stand_in.YouTube, monkeypatch: pytest.MonkeyPatch, kind: str, login: str, seen: str
) -> None:
    look_up = socket.getaddrinfo
    known = {'www.youtube.com': '127.7.7.7'}
    monkeypatch.setattr(
        socket, 'getaddrinfo', lambda host, *rest, **more: look_up(known.get(host, host), *rest, **more)
    )
    asked = []
    monkeypatch.setattr(stand_in.Handler, 'unknown', lambda handler: asked.append(handler.path))
    with proxy_before(site.door(), kind, login) as url:
        assert ask(way(url)).startswith('HTTP/1.1 200')
        wait_for(lambda: asked)  # a SOCKS server may answer before it is through
    assert asked == [f'{seen}:443']


@pytest.mark.parametrize(
    ('proxy', 'said'),
    [
        pytest.param('ftp://127.0.0.1:9', 'use http, https, socks4, socks5 or socks5h', id='scheme'),
        pytest.param(f'socks5://me:{SECRET}@127.0.0.1:port', 'host:port', id='port that is none'),
        pytest.param('socks5h://localhost', 'host:port', id='no port'),
        pytest.param('socks5h://localhost:70000', 'host:port', id='no such port'),
        pytest.param(f'me:{SECRET}@localhost', 'host:port', id='no port, no scheme'),
        pytest.param('http://', 'host:port', id='no host'),
        pytest.param('dirct', 'or direct', id='a word'),
        pytest.param('ssh://', 'ssh://user@host:port', id='ssh to no host'),
        pytest.param(f'ssh://me:{SECRET}@lab1', 'use a key', id='ssh with a password'),
    ],
)
def test_proxies_that_cannot_be_used(proxy: str, said: str) -> None:
    with pytest.raises(download.UsageError, match=re.escape(said)) as refusal:
        download.open_routes(download.read_settings(['--proxies', proxy]))
    assert SECRET not in str(refusal.value)
    assert '\n' not in str(refusal.value)


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(download.UsageError, match='there is no ssh on this machine'):
        download.open_routes(download.read_settings(['--proxies', 'ssh://lab1']))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(download.UsageError, match=r'pip install "python-socks\[asyncio\]"'):
        download.open_routes(download.read_settings(['--proxies', 'socks5://127.0.0.1:9']))


# ------------------------------------------------------------------------------------------------------------------ ssh


class Lab:
    """A machine to which we have ssh: a real sshd on loopback, to which the names of the site lead to the stand-in."""

    def __init__(self, folder: pathlib.Path, door: stand_in.Door) -> None:
        self.folder, self.door = folder, door
        self.address = (
            f'127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.'  # for one site at a time, at port 443
        )
        self.log, self.process = folder / 'said', None
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        for name in ('host', 'key', 'other'):
            subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', folder / name], check=True)
        hosts = [f'{self.address}{n} {name}' for n, name in enumerate(NAMES, 1)]
        (folder / 'hosts').write_text('\n'.join(['127.0.0.1 localhost', *hosts, '']))
        self.know('host')
        self.let_in('key')
        (folder / 'config').write_text(
            f'Host lab1\nHostName 127.0.0.1\nPort {self.port}\nUser root\n'
            f'IdentitiesOnly yes\nIdentityFile {folder}/key\n'
            f'UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile none\nControlPath {folder}/own\n'
        )
        (folder / 'ssh').write_text(
            f'#!/bin/sh\necho "$@" >> {self.log}\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n'
        )
        (folder / 'ssh').chmod(0o755)
        threading.Thread(target=asyncio.run, args=[self.lead()], daemon=True).start()

    def know(self, key: str) -> None:
        (self.folder / 'known').write_text(f'[127.0.0.1]:{self.port} {(self.folder / f"{key}.pub").read_text()}')

    def let_in(self, key: str) -> None:
        shutil.copy(self.folder / f'{key}.pub', self.folder / 'let_in')

    async def lead(self) -> None:
        """Connections to the names of the site go to the stand-in's door."""

        async def follow(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            source, sink = await asyncio.open_connection('127.0.0.1', self.door.server_address[1])
            sink.write(f'CONNECT {name}:443 HTTP/1.1\r\n\r\n'.encode())
            await source.readuntil(b'\r\n\r\n')
            await asyncio.gather(download.pour(reader, sink), download.pour(source, writer))

        for n, name in enumerate(NAMES, 1):
            await asyncio.start_server(lambda *pair, name=name: follow(name, *pair), f'{self.address}{n}', 443)
        await asyncio.Event().wait()

    def start(self, *options: str) -> None:
        pathlib.Path('/run/sshd').mkdir(exist_ok=True)
        plain = {'Port': self.port, 'ListenAddress': '127.0.0.1', 'HostKey': self.folder / 'host', 'PidFile': 'none',
                 'AuthorizedKeysFile': self.folder / 'let_in', 'StrictModes': 'no', 'UsePAM': 'no'}  # fmt: skip
        told = [f'-o{name}={value}' for name, value in plain.items()]
        within = f'mount --bind {self.folder}/hosts /etc/hosts && exec "$@"'
        command = ['unshare', '-m', 'sh', '-c', within, 'sh', SSHD, '-D', '-f', '/dev/null', *told, *options]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda: is_open(self.port))

    def clients(self) -> list[str]:
        """The command lines of the ssh processes that use it."""
        lines = subprocess.run(['ps', '-ww', '-eo', 'args'], capture_output=True, text=True).stdout.splitlines()
        return [line for line in lines if f'{self.folder}/config' in line]

    def hang_up(self, whole: bool = False) -> None:
        """Break all connections to it, or end it."""
        parents = dict(
            map(int, line.split())
            for line in subprocess.run(['ps', '-eo', 'pid=,ppid='], capture_output=True, text=True).stdout.splitlines()
        )
        ours = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        for pid in ours if whole else ours - {self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def may_have_labs() -> bool:
    """Whether there is an sshd that may look names up in a file of ours (Linux, root)."""
    return bool(SSHD) and may_mount() and os.geteuid() == 0


needs_sshd = pytest.mark.skipif(not may_have_labs(), reason='NO SSHD, OR NOT ROOT: apt-get install openssh-server')


@pytest.fixture
def lab(program: Program, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(tmp_path, program.site.door())
    for env in (os.environ, program.env):
        monkeypatch.setitem(env, 'PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('SSL_CERT_FILE', str(program.site.ca))
    yield made
    if made.process:
        made.hang_up(whole=True)
        made.process.wait()


@needs_sshd
def test_clips_come_by_ssh_and_nothing_of_it_is_left(program: Program, lab: Lab) -> None:
    program.offer(*stand_in.rows(4))
    lab.start()
    program.run('--proxies', 'ssh://lab1')
    assert len(program.metadata) == 4
    assert lab.door.counts['media'] >= 4
    assert not program.site.main_door.counts
    wait_for(lambda: not lab.clients())


@needs_sshd
def test_an_ssh_that_dies_is_started_again(program: Program, lab: Lab) -> None:
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.05
    lab.start()
    process = program.start('--proxies', 'ssh://lab1')
    wait_for(lambda: len(program.clips()) > 3)
    lab.hang_up()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert len(program.metadata) == 40
    assert lab.log.read_text().count('-N') == 2


@needs_sshd
def test_ssh_ends_with_a_program_that_is_killed(program: Program, lab: Lab) -> None:
    program.offer(*stand_in.rows(1))
    program.site.healthy.fault = 'media stall'
    lab.start()
    process = program.start('--proxies', 'ssh://lab1', '--timeout', '60')
    wait_for(lambda: lab.door.counts['media'])
    process.kill()
    process.communicate()
    wait_for(lambda: not lab.clients())


@needs_sshd
def test_a_connection_of_the_users_own_is_used_and_left_as_it_was(program: Program, lab: Lab) -> None:
    program.offer(*stand_in.rows(2))
    lab.start()
    subprocess.run(['ssh', '-MNf', 'lab1'], check=True)
    lab.let_in('other')  # no new connection would get in
    program.run('--proxies', 'ssh://lab1')
    assert len(program.metadata) == 2
    ports = re.findall(r'-N .*-D 127.0.0.1:(\d+)', lab.log.read_text())
    wait_for(lambda: not any(is_open(int(port)) for port in ports))
    assert len(lab.clients()) == 1
    subprocess.run(['ssh', '-O', 'exit', 'lab1'], check=True)


@needs_sshd
@pytest.mark.parametrize(
    ('fault', 'said'),
    [
        pytest.param('unknown', 'Host key verification failed', id='host unknown'),
        pytest.param('refused', 'Permission denied', id='key refused'),
        pytest.param('forbidden', 'administratively prohibited', id='forwarding forbidden'),
        pytest.param('down', 'Connection refused', id='nobody there'),
        pytest.param('nowhere', 'Could not resolve hostname', id='no such host'),
    ],
)
def test_what_ssh_says_is_the_reason(lab: Lab, way: Callable[[str], str], fault: str, said: str) -> None:
    if fault == 'unknown':
        (lab.folder / 'known').write_text('')
    if fault == 'refused':
        lab.let_in('other')
    if fault != 'down':
        lab.start(*['-oAllowTcpForwarding=no'] * (fault == 'forbidden'))
    host = 'nowhere.invalid' if fault == 'nowhere' else 'lab1'
    assert re.match(f'HTTP/1.1 502 no way by {host}: .*{said}', ask(way(f'ssh://{host}')))


@needs_sshd
def test_a_lab_that_forbids_forwarding_is_a_closed_route(program: Program, lab: Lab) -> None:
    program.offer(*stand_in.rows(12))
    lab.start('-oAllowTcpForwarding=no')
    out = program.run('--proxies', 'direct', 'ssh://lab1', '--timeout', '10').stdout
    assert re.search('lab1: every row fails .*no way by lab1: .*administratively prohibited', out)
    assert len(program.metadata) == 12
