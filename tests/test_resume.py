"""What a rerun knows: after a finished run, a crash, an interruption, a lost clip."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
import zlib

import imageio_ffmpeg
import mutagen
import pytest

import youtube as stand_in
from conftest import SCRIPT, Program, kill_session, opened, processes_of, thorough, wait_for

ID = 'aaaaaaaaaaa'
ROW = f'{ID}, 30.000, 40.000, "/m/09x0r"'
linux = pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')


def test_the_record_is_complete(program: Program) -> None:
    program.offer('-_aaaaaaaaa, 30.000, 40.000, "/m/068hy,/m/09x0r"')
    program.run()
    (record,) = program.metadata.values()
    assert record.pop('duration') == pytest.approx(10, abs=0.1)
    assert record == {
        'id': 'id_-_aaaaaaaaa',
        'path': 'wavs/id_-_aaaaaaaaa.m4a',
        'title': stand_in.Video().title,
        'url': 'https://www.youtube.com/watch?v=-_aaaaaaaaa',
        'tags': ['/m/068hy', '/m/09x0r'],
        'labels': ['Domestic animals, pets', 'Speech'],
        'ytid': '-_aaaaaaaaa',
        'split': 'eval',
        'start': 30.0,
        'end': 40.0,
        'format_id': '140',
        'ext': 'm4a',
    }
    assert (program.root / record['path']).exists()
    assert not program.leftovers()


def test_a_rerun_of_a_finished_run_asks_for_nothing(program: Program) -> None:
    program.offer(*stand_in.rows(5))
    program.run()
    before, metadata = program.site.counts.copy(), program.metadata
    said = program.run()
    assert program.site.counts == before
    assert '5 rows, 5 settled (5 done), 0 to do' in said.stdout
    assert program.metadata == metadata


def test_a_rerun_of_twenty_thousand_settled_rows_reads_only(program: Program) -> None:
    rows = stand_in.rows(20_000)
    program.offer(*rows)
    csvs, ledger = program.root / 'csvs', program.root / 'wavs' / 'm4a.sqlite3'
    csvs.mkdir(parents=True)
    ledger.parent.mkdir()
    (csvs / 'eval_segments.csv').write_bytes(stand_in.segments_csv(rows))
    with opened(csvs, ledger=ledger) as job:
        job.reader.finish()
        job.db.execute("UPDATE clip SET status = 'done', duration = 10, path = 'wavs/' || name || '.m4a'")
    said = program.run()
    assert '20000 settled (20000 done), 0 to do' in said.stdout
    assert set(program.site.counts) == {'csv', 'connections to csv'}
    assert len(program.metadata) == 20_000


def test_a_larger_limit_goes_on_where_the_smaller_ended(program: Program) -> None:
    rows = stand_in.rows(6)
    program.offer(*rows)
    program.run('--limit', '2')
    assert sorted(program.metadata) == sorted(f'id_{row[:11]}' for row in rows[:2])
    program.run('--limit', '2')
    assert program.site.counts['player'] == 2
    program.run()
    assert program.site.counts['player'] == len(program.metadata) == 6


def test_another_ext_is_another_job(program: Program) -> None:
    program.offer(ROW, 'bbbbbbbbbbb, 30.000, 40.000, "/m/09x0r"')
    program.site.add('bbbbbbbbbbb', fault='private')
    program.run()
    program.run('--ext', 'wav')
    assert {path.name for path in program.clips()} == {f'id_{ID}.m4a', f'id_{ID}.wav'}
    assert program.metadata[f'id_{ID}']['ext'] == 'wav'
    program.run()
    assert program.metadata[f'id_{ID}']['ext'] == 'm4a'
    assert 'nothing to merge' in program.run('--merge', '--ext', 'mp3', status=2).stderr
    assert program.metadata[f'id_{ID}']['ext'] == 'm4a'
    assert program.site.asked['player', 'bbbbbbbbbbb'] == 1


@linux
@pytest.mark.parametrize(
    ('moment', 'torn'),
    [(11, False), (25, True), *thorough((0, False), (11, True))],
    ids=lambda value: ('torn' if value else 'whole') if isinstance(value, bool) else f'after {value} clips',
)
def test_kill_9_at_any_moment(program: Program, moment: int, torn: bool) -> None:
    rows = stand_in.rows(40, seed=moment)
    program.offer(*rows)
    program.site.latency = 0.01
    process = program.start('--num-processes', '4')
    wait_for(lambda: len(program.clips()) >= moment and program.site.counts['player'])
    kill_session(process)
    for path in program.clips():
        assert mutagen.File(path).info.length == pytest.approx(10, abs=0.1)
    if torn:
        wal = program.root / 'wavs' / 'm4a.sqlite3-wal'
        os.truncate(wal, wal.stat().st_size // 2)
    program.run('--num-processes', '4')
    assert len(program.metadata) == len(program.clips()) == len(program.settled) == 40
    assert program.site.counts['player'] <= 40 + 4
    assert not program.leftovers()


@linux
@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM], ids=['Ctrl-C', 'SIGTERM'])
@pytest.mark.parametrize('stalled', [False, True], ids=['busy', 'waiting for YouTube'])
def test_interrupted(program: Program, stalled: bool, sent: signal.Signals) -> None:
    program.offer(*stand_in.rows(60))
    program.site.latency = 0.02
    if stalled:
        program.site.healthy.fault = 'media stall'
    process = program.start('--timeout', '600')
    wait_for(lambda: program.site.counts['media'] >= 4 if stalled else len(program.clips()) >= 5)
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    out, err = process.communicate(timeout=100)  # a sixth of --timeout: it waits for nothing
    assert process.returncode == 130
    assert 'interrupted' in err
    assert 'Traceback' not in out + err
    wait_for(lambda: not processes_of(process.pid))
    assert not program.leftovers()
    assert len(program.metadata) == len(program.settled)


@linux
@pytest.mark.parametrize('delay', [0.15, 0.4, 0.7, 1.0, 1.3])
def test_ctrl_c_while_it_starts(program: Program, delay: float) -> None:
    program.offer(*stand_in.rows(200))
    process = program.start()
    time.sleep(delay)  # any moment will do
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    begun = program.root.exists() or 'in main' in err  # its modules are there
    assert process.returncode in (130, -signal.SIGINT, *([] if begun else [1]))
    assert 'ForkServer' not in err
    assert 'Traceback' not in err or not begun
    wait_for(lambda: not processes_of(process.pid))
    assert not program.root.exists() or not list((program.root / 'temps').glob('*'))


def test_clips_that_no_ledger_knows_are_adopted_whenever_their_row_comes_up(program: Program) -> None:
    rows = stand_in.rows(8)
    program.offer(*rows, split='eval')
    program.run()
    before = [(path.name, path.stat().st_mtime_ns) for path in program.clips()]
    program.lose_ledgers()
    program.run('--limit', '2')
    program.run()
    assert [(path.name, path.stat().st_mtime_ns) for path in program.clips()] == before
    assert program.site.counts['player'] == len(program.metadata) == 8
    record = program.metadata[f'id_{rows[5][:11]}']
    assert (record['title'], record['format_id'], len(record['labels'])) == ('', '', len(record['tags']))
    assert 'verified 8 clips: 0 missing' in program.run('--verify').stdout


@pytest.mark.parametrize('content', [b'', b'\0' * 5000], ids=['empty', 'garbage'])
def test_a_broken_file_that_no_ledger_knows_is_replaced(program: Program, content: bytes) -> None:
    program.offer(ROW)
    (program.root / 'wavs').mkdir(parents=True)
    (program.root / 'wavs' / f'id_{ID}.m4a').write_bytes(content)
    program.run()
    assert mutagen.File(program.clip()).info.length == pytest.approx(10, abs=0.1)
    assert program.metadata[f'id_{ID}']['title']


def test_verify(program: Program) -> None:
    program.offer(*stand_in.rows(5))
    program.run('--ext', 'wav')
    missing, short, replaced, zeros, _ = paths = program.clips()
    missing.unlink()
    os.truncate(short, short.stat().st_size // 2)
    for path in (replaced, zeros):  # from the start, from the middle
        content = path.read_bytes()
        start = 0 if path == replaced else len(content) // 2
        path.write_bytes(content[:start] + bytes(len(content) - start - 9) + content[-9:])
    program.run('--ext', 'wav')
    assert program.site.counts['player'] == 5, 'the ledger is trusted'
    said = program.run('--ext', 'wav', '--verify')
    assert 'verified 5 clips: 4 missing or damaged' in said.stdout
    assert program.site.counts['player'] == 9
    assert [mutagen.File(path).info.length for path in paths] == [pytest.approx(10, abs=0.01)] * 5
    assert len(program.metadata) == 5
    assert 'verified 5 clips: 0 missing' in program.run('--ext', 'wav', '--verify').stdout


def test_a_second_run_over_the_same_root_is_refused(program: Program) -> None:
    program.offer(*stand_in.rows(40))
    program.site.latency = 0.02
    process = program.start()
    wait_for(lambda: program.clips())
    assert 'in use' in program.run(status=2).stderr
    process.communicate()
    assert process.returncode == 0
    assert len(program.metadata) == 40


def test_merge_alone(program: Program) -> None:
    program.offer(*stand_in.rows(3))
    program.run()
    before = program.metadata
    (program.root / 'audioset_metadata.json').unlink()
    command = [sys.executable, str(SCRIPT), '--root', str(program.root), '--merge']
    assert '3 records' in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert program.metadata == before


def test_what_failed_in_an_earlier_run_shows_as_failed(program: Program) -> None:
    program.offer(ROW, 'bbbbbbbbbbb, 30.000, 40.000, "/m/09x0r"')
    program.site.add(ID, fault='player 500')
    program.run('--limit', '1', '--retries', '0', status=1)
    program.site.weather = 'bot'
    said = program.run('--give-up-after', '0.5', status=1).stdout
    assert re.search(r'^failed +1\n +network +1.*\nnot tried +1$', said, re.M), said


@pytest.mark.parametrize('nth', [0, 20], ids=['choosing', 'fetching'])
def test_a_ctrl_c_within_a_function_that_sqlite_calls(
    program: Program, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    program.offer(*stand_in.rows(20))
    plain, calls = zlib.crc32, itertools.count()

    def crc32(data: bytes) -> int:
        if len(data) == 11 and next(calls) == nth:  # a video's id
            raise KeyboardInterrupt
        return plain(data)

    monkeypatch.setattr(zlib, 'crc32', crc32)
    assert 'mend that' not in program.run('--shard', '0/2', status=130).stderr


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_nobody_listens_any_more(program: Program, stream: str) -> None:
    """As with `| head`."""
    program.offer(*stand_in.rows(30))
    process = program.start()
    getattr(process, stream).close()
    process.communicate(timeout=60)
    assert len(program.metadata) == 30


def test_nobody_listens_to_a_report(program: Program) -> None:
    program.offer(*stand_in.rows(3))
    program.run()
    process = program.start('--report')
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, '')


@pytest.mark.skipif(os.name == 'nt', reason='needs a Unix shell')
@pytest.mark.parametrize('closed', ['>&-', '2>&-', '>&- 2>&-'])
def test_what_the_shell_has_closed_does_not_end_a_run(program: Program, closed: str) -> None:
    program.offer(*stand_in.rows(6))
    assert program.run_in_shell(f'exec "$@" {closed}').returncode == 0
    assert len(program.metadata) == len(program.settled) == 6
    assert program.ask('PRAGMA integrity_check') == [('ok',)], 'nothing was written where it does not belong'


@pytest.mark.skipif(os.name == 'nt', reason='needs a Unix shell')
def test_too_few_open_files_are_said_in_one_line(program: Program) -> None:
    program.offer(*stand_in.rows(40))
    ran = program.run_in_shell('ulimit -n 64; exec "$@"', '--num-processes', '32')
    assert (ran.returncode, ran.stderr.count('\n')) == (2, 1), ran.stdout + ran.stderr
    assert 'num_processes' in ran.stderr


def test_a_long_path_for_temporary_files(program: Program) -> None:
    """Longer than a socket's may be."""
    program.offer(*stand_in.rows(4))
    folder = program.root.parent / ('x' * max(1, 99 - len(str(program.root.parent))))
    folder.mkdir()
    program.env['TMPDIR'] = str(folder)
    program.run()
    assert len(str(folder)) >= 100
    assert len(program.metadata) == 4


def test_a_disk_that_fills_up_stops_the_run(program: Program) -> None:
    program.offer(*stand_in.rows(30))
    real = imageio_ffmpeg.get_ffmpeg_exe()
    shim = program.root.parent / 'ffmpeg'
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *https://*) echo "No space left on device" >&2; exit 1;; esac\nexec {real} "$@"\n'
    )
    shim.chmod(0o755)
    said = program.run('--ffmpeg', str(shim), status=1)
    assert 'No space left on device' in said.stderr
    assert not program.settled
    program.run()
    assert len(program.metadata) == 30


@pytest.mark.skipif(not os.path.isdir('/dev/shm'), reason='needs a second file system')
def test_wavs_on_another_file_system(program: Program) -> None:
    import tempfile

    program.offer(ROW)
    program.root.mkdir()
    with tempfile.TemporaryDirectory(dir='/dev/shm') as elsewhere:
        (program.root / 'wavs').symlink_to(elsewhere)
        program.run()
        assert mutagen.File(program.clip()).info.length == pytest.approx(10, abs=0.1)
        assert program.metadata[f'id_{ID}']['path'] == f'wavs/id_{ID}.m4a'
        assert not list((program.root / 'wavs').glob('.parts*'))
