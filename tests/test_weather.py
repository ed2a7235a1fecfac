"""YouTube's weather and the machine's, met by the whole program: it waits, goes on by itself, and loses nothing."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import chaos
import youtube as stand_in
from conftest import (
    LOGIN,
    SECRET,
    Program,
    give_cookies,
    may_mount,
    mounted,
    processes_of,
    small_disk,
    thorough,
    wait_for,
    workers_of,
)
from youtube import Video

linux = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
disks = pytest.mark.skipif(not may_mount(), reason='may not mount a small file system here')
REFUSALS = ['bot', 'media 429']


class Watched:
    """A run in the background whose words can be read while it goes on."""

    def __init__(self, program: Program, *flags: str) -> None:
        self.program, self.log = program, program.root.parent / 'log'
        with open(self.log, 'w') as log:
            self.process = program.start(*flags, stdout=log, stderr=log)

    def said(self) -> str:
        return self.log.read_text()

    def hear(self, pattern: str) -> None:
        wait_for(lambda: re.search(pattern, self.said()))

    def end(self, status: int = 0) -> str:
        self.process.wait(90)
        assert self.process.returncode == status, self.said()
        assert 'Traceback' not in self.said()
        return self.said()


@pytest.fixture
def watch(program: Program) -> Iterator[type[Watched]]:
    runs = []

    def start(*flags: str) -> Watched:
        runs.append(Watched(program, *flags))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


@pytest.fixture
def stalled(program: Program, watch: type[Watched]) -> Watched:
    """A run whose clips all wait for bytes that do not come."""
    program.offer(*stand_in.rows(20))
    program.site.healthy.fault = 'media stall'
    run = watch('--timeout', '60')
    wait_for(lambda: program.site.counts['media'] >= 4)
    return run


@pytest.mark.parametrize(
    'weather', ['bot', 'dead', 'media 403', *thorough('media 429', 'player garbage', 'media drop')]
)
def test_weather_comes_and_goes_and_leaves_no_trace(program: Program, watch: type[Watched], weather: str) -> None:
    rows = stand_in.rows(30)
    program.offer(*rows)
    program.site.videos[rows[20][:11]] = Video(fault='private')
    program.site.latency = 0.03
    run = watch('--num-processes', '4')
    wait_for(lambda: len(program.clips()) >= 5)
    program.site.weather = weather
    run.hear('one row tries again')
    asked = program.site.counts['player']
    wait_for(lambda: program.site.main_door.counts['refused'] >= 6)
    assert program.site.counts['player'] - asked < 40, 'it does not hammer'
    assert {status for status, _ in program.reasons.values()} <= {'done', 'gone'}
    program.site.weather = ''
    said = run.end()
    assert ('YouTube refuses us' if weather in REFUSALS else 'every row fails') in said
    assert 'YouTube answers again' in said
    assert len(program.settled) == 30
    assert len(program.metadata) == 29
    assert not program.leftovers()


def test_a_network_that_is_dead_from_the_start(program: Program, watch: type[Watched]) -> None:
    rows = stand_in.rows(3)
    program.offer(*rows)
    program.run('--limit', '1')
    program.site.weather = 'dead'
    run = watch()
    run.hear('every row fails')
    program.site.weather = ''
    run.end()
    assert len(program.metadata) == len(program.settled) == 3


@pytest.mark.parametrize('fault', ['bot', 'media 403', *thorough('rate', 'player drop')])
def test_one_bad_row_does_not_hold_the_others_up(program: Program, fault: str) -> None:
    rows = stand_in.rows(20)
    program.offer(*rows)
    program.site.videos[rows[3][:11]] = Video(fault=fault)
    program.run('--pause', '0.05', '--longest-pause', '0.1', status=1)
    assert len(program.metadata) == 19
    assert program.reasons[rows[3][:11]][0] == 'failed'


def test_an_answer_to_everything_is_not_written(program: Program, watch: type[Watched]) -> None:
    """In words that mean gone, but after 12 good clips every video is answered so."""
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.05
    run = watch('--give-up-after', '2')
    wait_for(lambda: len(program.clips()) >= 12)
    program.site.healthy = Video(says=('ERROR', 'Video unavailable', "This content isn't available."))
    assert 'stopped: ' in run.end(1)
    assert 12 <= len(program.metadata) < 40
    assert {status for status, _ in program.reasons.values()} == {'done'}
    program.site.healthy, program.site.latency = Video(), 0
    program.run()
    assert len(program.metadata) == 40


def test_a_known_clip_that_is_gone_does_not_hold_up_a_rerun(program: Program) -> None:
    """The first done row has become private since, and another one meets a single 403."""
    rows = stand_in.rows(2)
    program.offer(*rows)
    program.run('--limit', '1')
    program.site.videos[rows[0][:11]] = Video(fault='private')
    program.site.videos[rows[1][:11]] = Video(fault='media 403', times=1)
    program.run()
    assert program.site.videos[rows[1][:11]].times == 0, 'it happened'
    assert len(program.metadata) == 2


def test_giving_up(program: Program) -> None:
    program.offer(*stand_in.rows(20))
    program.site.weather = 'bot'
    said = program.run('--give-up-after', '1', status=1)
    assert re.search(
        r'^stopped: nothing came through for \d s \(bot check: .*20 rows are left, .* 0.00 GB; .*same command',
        said.stderr,
        re.M,
    )
    assert not program.settled
    program.site.weather = ''
    program.run()
    assert len(program.metadata) == 20


def test_an_hourly_budget_of_youtubes_is_found_and_lived_with(program: Program) -> None:
    program.offer(*stand_in.rows(30))
    program.site.main_door.budget, program.site.main_door.window = 12, 2
    program.run()
    assert len(program.metadata) == len(program.settled) == 30
    assert program.site.counts['player'] < 30 + 60


def test_a_budget_of_ones_own(program: Program, watch: type[Watched]) -> None:
    program.offer(*stand_in.rows(20))
    run = watch('--per-hour', '6')
    wait_for(lambda: len(program.clips()) == 6)
    time.sleep(1)
    assert len(program.clips()) == program.site.counts['player'] == 6
    run.process.send_signal(signal.SIGTERM)
    run.end(130)
    assert len(program.metadata) == 6


# ------------------------------------------------------------------------------------------------------------- routes


def test_three_proxies_of_which_one_dies(program: Program, watch: type[Watched]) -> None:
    program.offer(*stand_in.rows(60))
    doors = [program.site.door() for _ in range(3)]
    program.site.latency = 0.03
    del program.env['https_proxy'], program.env['http_proxy']
    run = watch('--proxies', *(door.url for door in doors))
    wait_for(lambda: len(program.clips()) >= 10)
    doors[1].weather = 'dead'
    run.hear(rf'127.0.0.1:{doors[1].server_address[1]} *: every row fails')
    assert all(door.counts['player'] and door.counts['media'] for door in doors), (
        'side by side, questions and media alike'
    )
    run.end()
    assert len(program.metadata) == len(program.settled) == 60
    assert {status for status, _ in program.reasons.values()} == {'done'}
    assert not program.site.main_door.counts


def test_a_blocked_address_hands_its_rows_to_the_others(program: Program) -> None:
    program.offer(*stand_in.rows(30))
    good, bad = program.site.door(), program.site.door()
    bad.weather = 'bot'
    program.run('--proxies', bad.url, good.url, '--pause', '60', '--longest-pause', '60')
    assert len(program.metadata) == 30
    assert good.counts['player'] >= 30
    assert bad.counts['player'] < 30


def test_a_proxy_of_another_country_loses_no_row(program: Program) -> None:
    program.offer(*stand_in.rows(20))
    here, abroad = program.site.door(), program.site.door()
    abroad.weather = 'country'
    program.run('--proxies', abroad.url, here.url)
    assert abroad.counts['player']
    assert len(program.metadata) == len(program.settled) == 20


def test_a_proxy_that_nobody_answers_for(program: Program) -> None:
    program.offer(*stand_in.rows(10))
    door = program.site.door()
    program.run('--proxies', 'http://127.0.0.1:9', door.url, '--pause', '60', '--longest-pause', '60')
    assert len(program.metadata) == 10


def test_a_proxy_with_a_login_that_nobody_reads(program: Program, watch: type[Watched]) -> None:
    rows = stand_in.rows(6)
    program.offer(*rows)
    program.site.videos[rows[1][:11]] = Video(fault='player drop')
    program.site.videos[rows[2][:11]] = Video(fault='media drop')
    program.site.videos[rows[3][:11]] = Video(fault='media stall')
    door = program.site.door(login=f'me:{SECRET}')
    program.root.mkdir()
    program.script = program.root / 'download.py'  # its globals, as the command line is for everybody to read
    source = pathlib.Path(chaos.__file__).parent.parent / 'download.py'
    program.script.write_text(
        source.read_text().replace('proxies: list[str] = []', f'proxies: list[str] = [{door.url!r}]')
    )
    run = watch('--timeout', '60', '--clip-timeout', '4', '--retries', '0')
    wait_for(lambda: program.site.asked['media', rows[3][:11]])
    lines = subprocess.run(['ps', '-ww', '-eo', 'args'], capture_output=True, text=True).stdout
    assert 'videoplayback' in lines
    run.end(1)
    assert len(program.metadata) == 3
    assert not program.site.main_door.counts
    door.login = 'another one'
    (program.root / 'wavs' / 'm4a.sqlite3').rename(program.root / 'former')
    shutil.rmtree(program.root / 'wavs')
    said = watch('--give-up-after', '0.5').end(1)
    assert '407' in said
    told = subprocess.run(
        [sys.executable, str(program.script), '--help'], capture_output=True, text=True, check=True
    ).stdout
    told += program.run('--limit', 'x', status=2).stderr
    ledgers = [program.root / 'former', *(program.root / 'wavs').glob('*.sqlite3*')]
    kept = [path.read_text(errors='replace') for path in [run.log, *ledgers]]
    assert not [text for text in [lines, said, re.sub(r'\s', '', told), *kept] if SECRET in text]


# ------------------------------------------------------------------------------------------------ plugins and cookies

PLUGIN = """
from yt_dlp.extractor.youtube.pot.provider import (
    PoTokenContext,
    PoTokenProvider,
    PoTokenResponse,
    register_preference,
    register_provider,
)

@register_provider
class StandInPTP(PoTokenProvider):
    PROVIDER_NAME = 'stand-in'
    PROVIDER_VERSION = '1'
    BUG_REPORT_LOCATION = 'nowhere'
    _SUPPORTED_CLIENTS = None
    _SUPPORTED_EXTERNAL_REQUEST_FEATURES = None
    _SUPPORTED_CONTEXTS = (PoTokenContext.PLAYER, PoTokenContext.GVS)

    def is_available(self):
        return True

    def _real_request_pot(self, request):
        return PoTokenResponse(po_token='c3RhbmQtaW4tdG9rZW4=')
"""


def test_a_plugin_beside_yt_dlp_works_in_the_workers(program: Program, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / 'site' / 'yt_dlp_plugins' / 'extractor'
    folder.mkdir(parents=True)
    (folder / 'getpot_stand_in.py').write_text(PLUGIN)
    program.env['PYTHONPATH'] = str(tmp_path / 'site')
    program.offer(*stand_in.rows(2))
    program.site.healthy.fault, program.site.healthy.minimal = 'bot', True
    program.run('--ydl-opts', '{"extractor_args": {"youtube": {"fetch_pot": ["always"]}}}')
    assert len(program.metadata) == 2
    assert 'c3RhbmQtaW4tdG9rZW4=' in program.site.tokens


def test_expired_cookies_wait_for_new_ones(program: Program, watch: type[Watched]) -> None:
    program.offer(*stand_in.rows(8))
    give_cookies(program, LOGIN)
    program.site.set_cookie = 'LOGIN_INFO=; Max-Age=0; Domain=.youtube.com; Path=/'
    run = watch('--pause', '600', '--longest-pause', '600')
    run.hear('cookies are no longer valid')
    assert not program.reasons
    program.site.set_cookie = ''
    (program.root / 'cookies.txt').write_text('half a li')
    run.hear('not a Netscape cookie file')
    give_cookies(program, [*LOGIN, 'FRESH'])
    run.end()
    assert len(program.metadata) == 8
    assert any('FRESH' in cookie for cookie in program.site.cookies)


def test_cookies_that_come_as_the_remedy_are_taken_at_once(program: Program, watch: type[Watched]) -> None:
    program.offer(*stand_in.rows(8))
    program.site.weather = 'bot'
    run = watch('--pause', '600', '--longest-pause', '600')
    run.hear('tries again')
    program.site.weather = ''
    give_cookies(program, LOGIN)
    run.end()
    assert len(program.metadata) == 8


# -------------------------------------------------------------------------------------------------------- the machine


@linux
@pytest.mark.parametrize('busy', [False, True], ids=['idle', 'busy'])
def test_a_killed_worker_costs_its_row_a_try(program: Program, watch: type[Watched], busy: bool) -> None:
    rows = stand_in.rows(12)
    program.offer(*rows)
    program.site.videos[rows[0][:11]] = Video(fault='media stall', times=1)
    run = watch('--num-processes', '3', '--timeout', '60')
    wait_for(lambda: len(program.clips()) == 11)
    (at_work,) = workers_of(run.process.pid, busy=True)
    for pid in [at_work] if busy else set(workers_of(run.process.pid)) - {at_work}:
        os.kill(pid, signal.SIGKILL)
    if not busy:
        assert run.process.poll() is None
        os.kill(at_work, signal.SIGKILL)
    run.end()
    assert len(program.metadata) == len(program.settled) == 12


@linux
def test_a_row_that_kills_its_worker_three_times_is_failed(program: Program, watch: type[Watched]) -> None:
    rows = stand_in.rows(12)
    program.offer(*rows)
    program.site.videos[rows[0][:11]] = Video(fault='media stall')
    run = watch('--num-processes', '3', '--timeout', '60', '--retries', '9')
    wait_for(lambda: len(program.clips()) == 11)
    for nth in range(1, 4):
        wait_for(lambda nth=nth: program.site.asked['media', rows[0][:11]] >= 2 * nth)
        (at_work,) = workers_of(run.process.pid, busy=True)
        os.kill(at_work, signal.SIGKILL)
    run.end(1)
    assert program.reasons[rows[0][:11]] == ('failed', 'worker died')
    assert len(program.metadata) == 11


@linux
def test_no_process_outlives_a_killed_program(program: Program, stalled: Watched) -> None:
    stalled.process.kill()
    wait_for(lambda: not processes_of(stalled.process.pid))
    program.site.healthy.fault = ''
    program.run()
    assert len(program.metadata) == 20
    assert not program.leftovers()


@pytest.mark.parametrize('fault', ['player stall', 'media stall'], ids=['a question', 'a clip'])
def test_a_clip_cannot_outlast_its_time(program: Program, watch: type[Watched], fault: str) -> None:
    rows = stand_in.rows(3)
    program.offer(*rows)
    program.site.videos[rows[0][:11]] = Video(fault=fault)
    run = watch('--timeout', '60', '--clip-timeout', '3', '--retries', '0', '--num-processes', '1')
    wait_for(lambda: program.site.counts['player'])
    workers = workers_of(run.process.pid) if sys.platform == 'linux' else []
    wait_for(lambda: program.site.asked[fault.split()[0], rows[0][:11]])
    assert not workers or workers_of(run.process.pid) == workers
    run.end(1)
    assert program.reasons[rows[0][:11]] == ('failed', 'timeout')
    assert len(program.metadata) == 2


@disks
@pytest.mark.parametrize('ahead', [True, False], ids=['seen ahead', 'met'])
def test_a_full_disk(program: Program, ahead: bool) -> None:
    program.offer(*stand_in.rows(40))
    with small_disk(program.root, 4):
        if not ahead:
            program.edit('pace.stop or short_of_space(job.settings)', 'pace.stop')
        said = program.run('--num-processes', '4', status=1)
        assert re.search(
            r'^stopped: .*(MB are free|No space left|is full|code 228).*\d+ rows are left, which need about 0.0\d GB',
            said.stderr,
            re.M,
        )
        assert 'about 0.0 GB are needed and 0.0 GB are free' in said.stdout
        made = len(program.settled)
        assert 5 <= made < 40
        assert not program.leftovers()
        assert {path.stat().st_size > 150_000 for path in program.clips()} == {True}
        subprocess.run(['mount', '-o', 'remount,size=40m', str(program.root)], check=True)
        program.run('--num-processes', '4')
        assert len(program.metadata) == len(program.settled) == 40
        assert program.site.counts['player'] <= 40 + 4


@disks
@pytest.mark.parametrize('what', ['ledger', 'metadata'])
def test_a_disk_that_is_full_to_the_last_byte(program: Program, what: str) -> None:
    program.offer(*stand_in.rows(6))
    with small_disk(program.root, 8):
        program.run('--limit', '3')
        before = program.metadata
        (program.root / 'ballast').write_bytes(b'')
        with contextlib.suppress(OSError), open(program.root / 'ballast', 'wb', buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        said = program.run(*(['--merge'] if what == 'metadata' else []), status=1)
        assert re.search('No space left|MB are free', said.stderr)
        assert program.metadata == before
        (program.root / 'ballast').unlink()
        assert len(program.settled) == 3
        program.run()
        assert len(program.metadata) == 6


@disks
def test_a_disk_that_becomes_read_only(program: Program, watch: type[Watched]) -> None:
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.05
    with small_disk(program.root, 40):
        still = program.root.with_name('read-only')
        still.mkdir()
        with mounted('--bind', program.root, still):
            subprocess.run(
                ['mount', '-o', 'remount,bind,ro', str(still)], check=True
            )  # where nobody writes, else it is busy
            run = watch()
            wait_for(lambda: len(program.clips()) >= 5)
            with mounted('--bind', still, program.root):
                said = run.end(1)
        assert re.search(r'^stopped: .*Read-only file system.*rows are left, which need about', said, re.M)
        program.site.latency = 0
        program.run()
        assert len(program.metadata) == len(program.settled) == 40


@linux
def test_a_second_run_names_the_first_and_a_dead_one_is_no_obstacle(program: Program, stalled: Watched) -> None:
    assert f'in use by process {stalled.process.pid} on ' in program.run(status=2).stderr
    stalled.process.kill()
    stalled.process.wait()
    assert str(stalled.process.pid) in program.ask("SELECT value FROM state WHERE name = 'writer'")[0][0]
    program.site.healthy.fault = ''
    program.run()
    assert len(program.metadata) == 20


@linux
def test_a_second_ctrl_c_ends_at_once(stalled: Watched) -> None:
    for pid in workers_of(stalled.process.pid):
        os.kill(pid, signal.SIGSTOP)  # they will not end when they are asked to
    for _ in range(2):
        os.killpg(stalled.process.pid, signal.SIGINT)
        time.sleep(0.1)
    stalled.end(130)  # it did not wait for them
    wait_for(lambda: not processes_of(stalled.process.pid))


@linux
def test_a_laptop_that_sleeps_and_wakes_without_a_network(program: Program, watch: type[Watched]) -> None:
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.03
    run = watch('--num-processes', '4', '--clip-timeout', '3')
    wait_for(lambda: len(program.clips()) >= 5)
    for weather, sent in [('', signal.SIGSTOP), ('dead', signal.SIGCONT)]:
        program.site.weather = weather
        for pid in processes_of(run.process.pid):
            with contextlib.suppress(ProcessLookupError):  # an ffmpeg that is done
                os.kill(pid, sent)
        time.sleep(4 if sent == signal.SIGSTOP else 0)  # longer than any time limit
    run.hear('every row fails')
    program.site.weather = ''
    run.end()
    assert len(program.metadata) == len(program.settled) == 40


# ---------------------------------------------------------------------------------------------------------- the proof


@linux
@pytest.mark.timeout(400)
def test_chaos(tmp_path: pathlib.Path) -> None:
    """Everything above at random, as long as a suite may take; see chaos.py."""
    report = chaos.trial(tmp_path, rows=120, seed=1, seconds=20)
    assert not report.differences, report
