"""Which seconds a clip holds, how long it is, and what it cost."""

import pathlib
import subprocess

import imageio_ffmpeg
import mutagen
import pytest

import youtube as stand_in
from conftest import Program, look, offset

ID = 'aB3-_xYz019'
SPEECH = '"/m/09x0r"'


def streams(path: pathlib.Path) -> str:
    """What ffmpeg says about a file."""
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-i', str(path)], capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ('ext', 'flags', 'wanted'),
    [
        pytest.param('m4a', [], '44100 Hz, stereo', id='copied'),
        pytest.param('m4a', ['--sample-rate', '16000', '--channels', '1'], '16000 Hz, mono', id='m4a encoded'),
        pytest.param('wav', ['--sample-rate', '16000', '--channels', '1'], '16000 Hz, mono', id='wav'),
        pytest.param('flac', ['--sample-rate', '32000'], '32000 Hz, stereo', id='flac'),
        pytest.param('opus', ['--channels', '1'], '48000 Hz, mono', id='opus'),
        pytest.param('mp3', ['--sample-rate', '22050'], '22050 Hz, stereo', id='mp3'),
    ],
)
def test_sample_rate_and_channels(program: Program, ext: str, flags: list[str], wanted: str) -> None:
    program.offer(f'{ID}, 30.000, 40.000, {SPEECH}')
    program.run('--ext', ext, *flags)
    assert wanted in streams(program.clip())
    assert abs(offset(program.clip(), 30, 10)) <= 0.025


def test_a_connection_that_breaks_at_the_last_packets(program: Program) -> None:
    program.offer(f'{ID}, 30.000, 40.000, {SPEECH}')
    program.run()
    other = Program(program.root.parent / 'other', program.site)
    program.site.add(ID, fault='media short')
    other.run()
    assert other.clip().read_bytes() == program.clip().read_bytes()


def test_m4a_is_the_sources_own_bits(program: Program) -> None:
    program.offer(f'{ID}, 30.000, 40.000, {SPEECH}')
    program.run()
    source = stand_in.media('140', 630)
    with open(program.clip(), 'rb') as clip:
        frame = clip.read()[2000:2200]
    assert frame in source


def test_short_segments(program: Program) -> None:
    program.offer(f'{ID}, 3.000, 4.000, {SPEECH}')
    program.run()
    assert mutagen.File(program.clip()).info.length == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('exact', [False, True], ids=['edit list', 'exact frames'])
def test_mp4_holds_the_right_frames_and_sound(program: Program, exact: bool) -> None:
    starts = {f'{n:011}': start for n, start in enumerate([0, 21.5, 33])}
    program.offer(*(f'{ytid}, {start:.3f}, {start + 10:.3f}, {SPEECH}' for ytid, start in starts.items()))
    program.run('--ext', 'mp4', *(['--exact-frames'] if exact else []))
    for ytid, start in starts.items():
        frames, first = look(program.clip(ytid)), round(start * stand_in.FPS)
        assert abs(frames[0] - first) <= 1
        assert abs(len(frames) - 10 * stand_in.FPS) <= 1
        assert frames == list(range(frames[0], frames[0] + len(frames)))
        assert abs(offset(program.clip(ytid), start, 10)) <= 0.025
        hidden = look(program.clip(ytid), '-ignore_editlist', '1')[0] < frames[0]  # copied from the keyframe before
        assert hidden == (not exact and first % 50 > 0)


@pytest.mark.parametrize('exact', [False, True], ids=['edit list', 'exact frames'])
def test_an_mp4_without_some_of_its_picture_or_sound_is_no_clip(program: Program, exact: bool) -> None:
    good = [f'good{n:07}' for n in range(4)]
    program.offer(*(f'{ytid}, 590.000, 600.000, {SPEECH}' for ytid in ['picture____', 'sound______', *good]))
    program.site.add('picture____', fault='media truncate', itag='134')
    program.site.add('sound______', fault='media truncate', itag='140')
    program.run('--ext', 'mp4', '--retries', '1', *(['--exact-frames'] if exact else []), status=1)
    failed = {ytid: fate for ytid, fate in program.reasons.items() if ytid not in good}
    assert failed == dict.fromkeys(['picture____', 'sound______'], ('failed', 'wrong length'))
    assert len(program.clips()) == len(good)


@pytest.mark.parametrize(('height', 'size'), [(360, '640x360'), (720, '1280x720')])
def test_the_height_of_mp4_is_capped(program: Program, height: int, size: str) -> None:
    program.offer(f'{ID}, 3.000, 5.000, {SPEECH}')
    program.site.add(ID, seconds=20)
    program.run('--ext', 'mp4', '--max-height', str(height))
    assert size in streams(program.clip())


def test_mp4_without_aac(program: Program) -> None:
    program.offer(f'{ID}, 3.000, 8.000, {SPEECH}')
    program.site.add(ID, seconds=20, lacks='audio/mp4')
    program.run('--ext', 'mp4')
    assert 'aac' in streams(program.clip())
    assert abs(offset(program.clip(), 3, 5)) <= 0.025


def test_a_hundred_rows_cost_what_is_promised(program: Program, tmp_path: pathlib.Path) -> None:
    rows = stand_in.rows(100, seed=4)
    program.offer(*rows)
    log, shim = tmp_path / 'started', tmp_path / 'ffmpeg'
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *https://*) echo >> {log};; esac\nexec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"\n'
    )
    shim.chmod(0o755)
    program.run('--ffmpeg', str(shim))
    asked = program.site.counts
    assert len(program.metadata) == len(program.clips()) == 100
    assert asked['player'] + asked['page'] + asked['js'] + asked['next'] <= 105
    assert asked['bytes'] <= 25e6
    assert asked['media connections'] <= 105
    assert asked['connections to api'] <= 2 * 20
    assert len(log.read_text()) == 100
    for row in rows[::9]:
        assert abs(offset(program.clip(row[:11]), float(row.split(', ')[1]), 10)) <= 0.025


def test_rows_of_webm_cost_what_is_promised(program: Program) -> None:
    program.offer(*stand_in.rows(40, seed=4))
    program.site.healthy.lacks = 'audio/mp4'
    program.run('--ext', 'wav')
    assert len(program.metadata) == 40
    assert program.site.counts['bytes'] <= 20e6
    assert program.site.counts['media connections'] <= 42
    assert program.site.counts['player'] + program.site.counts['page'] <= 42
