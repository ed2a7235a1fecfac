"""Which of the sounds that YouTube offers a clip is made of, from which second, and when there is none to be had."""

import pytest

import youtube as stand_in
from conftest import Program, listen, look, offset
from youtube import Video

SECONDS = 60.0
STARTS = [
    0,
    12.5,
    15,
    21.337,
    53,
]  # s: the first one, within a segment of HLS, at a border, between packets, the last ones
DAMAGED = dict.fromkeys(('139', '140', '249', '250', '251'), 5.0)
SHAPES = {
    'hls': Video(SECONDS, shape='hls'),
    'muxed': Video(SECONDS, shape='hls muxed'),
    'dash': Video(SECONDS, shape='dash'),
    'combined': Video(SECONDS, shape='18'),
    'dubbed': Video(SECONDS, shape='dubbed'),
    'default dub': Video(SECONDS, shape='dubbed default'),
    'dubbed hls': Video(SECONDS, shape='hls dubbed'),
    'described': Video(SECONDS, shape='described'),
    'drc': Video(SECONDS, shape='drc'),
    'damaged': Video(SECONDS, damaged={'139': 5.0, '140': 5.0}),
}


def row(ytid: str, start: float, end: float | None = None) -> str:
    return f'{ytid}, {start:.3f}, {end or start + 10:.3f}, "/m/09x0r"'


def offer(program: Program, ytid: str, video: Video, *starts: float) -> None:
    stand_in.prepare(video)
    program.site.videos[ytid] = video
    program.offer(*(row(ytid, start) for start in starts))


@pytest.mark.timeout(400)
@pytest.mark.parametrize('ext', ['m4a', 'wav', 'flac', 'opus', 'mp3', 'mp4'])
def test_every_shape_gives_the_right_seconds(program: Program, ext: str) -> None:
    wanted = {}
    for shape, video in SHAPES.items():
        stand_in.prepare(video)
        for start in STARTS:
            ytid = f'{len(wanted):011}'
            program.site.videos[ytid], wanted[ytid] = video, (shape, start)
    program.offer(*(row(ytid, start) for ytid, (_, start) in wanted.items()))
    program.run('--ext', ext)
    exact = 0.002 if ext in ('wav', 'flac') else 0.025
    off = {}
    for ytid, (shape, start) in wanted.items():
        clip, length = program.clip(ytid), min(10, SECONDS - start)
        off[shape, start] = offset(clip, start, length)
        assert len(listen(clip)) / 44100 == pytest.approx(length, abs=exact + 0.08), (shape, start)
        if ext == 'mp4':
            assert abs(look(clip)[0] - round(start * stand_in.FPS)) <= 1, (shape, start)
    assert {case: by for case, by in off.items() if abs(by) > exact} == {}
    asked = program.site.counts.copy()
    program.run('--ext', ext)
    assert program.site.counts == asked, 'nothing that is settled is asked for again'
    assert not program.leftovers()


@pytest.mark.parametrize(
    ('video', 'start', 'fate'),
    [
        pytest.param(Video(SECONDS, shape='dub only'), 10, ('failed', 'dubbed'), id='a dub instead'),
        pytest.param(
            Video(SECONDS, shape='dub only default'), 10, ('failed', 'dubbed'), id='a dub instead, as the default'
        ),
        pytest.param(Video(SECONDS, shape='described only'), 10, ('failed', 'dubbed'), id='a description instead'),
        pytest.param(Video(SECONDS, shape='hls dub only'), 10, ('failed', 'dubbed'), id='a dub instead, in HLS'),
        pytest.param(Video(SECONDS, shape='drc only'), 10, ('failed', 'dubbed'), id='even loudness instead'),
        pytest.param(Video(SECONDS, shape='mute'), 10, ('gone', 'no sound'), id='without sound'),
        pytest.param(Video(40.0), 40, ('gone', 'too short'), id='ends at the start'),
        pytest.param(Video(40.0), 40.5, ('gone', 'too short'), id='ends before the start'),
        pytest.param(Video(40.0), 39.95, ('gone', 'too short'), id='ends with it'),
        pytest.param(Video(SECONDS, damaged=DAMAGED), 45, ('failed', 'damaged'), id='damaged beyond that'),
        pytest.param(Video(fault='age', shape='no context'), 10, ('gone', 'age'), id='a second answer that breaks'),
        pytest.param(
            Video(fault='age', shape='odd page'), 10, ('gone', 'age'), id='a second answer that breaks otherwise'
        ),
    ],
)
def test_what_is_no_clip(program: Program, video: Video, start: float, fate: tuple[str, str]) -> None:
    offer(program, 'aaaaaaaaaaa', video, start)
    program.run('--retries', '1', status=0 if fate[0] == 'gone' else 1)
    assert program.reasons == {'aaaaaaaaaaa': fate}
    assert not program.clips()
    assert not program.site.counts['media']
    asked = program.site.counts['player']
    program.run('--retries', '1', status=0 if fate[0] == 'gone' else 1)
    assert program.site.counts['player'] == asked * (1 if fate[0] == 'gone' else 2), 'once a run'


@pytest.mark.parametrize(
    ('video', 'start', 'duration'),
    [
        pytest.param(Video(SECONDS, shape='18', sound_ends=0.8), 50, 9.2, id='the sound ends early'),
        pytest.param(Video(SECONDS, shape='18', sound_ends=0.8), 49.5, 9.7, id='within the row'),
        pytest.param(Video(36.6, shape='hls'), 30, 6.6, id='the end of HLS'),
        pytest.param(Video(SECONDS, shape='18', sound_ends=3.0), 48, 9.0, id='the sound ends long before'),
        pytest.param(Video(120.0, damaged={'140': 5.0}), 45, 10, id='a damaged format beside a whole one'),
        pytest.param(Video(120.0, damaged={'140': 5.0}), 2, 10, id='which holds a part of the row'),
    ],
)
def test_a_clip_is_what_there_is(program: Program, video: Video, start: float, duration: float) -> None:
    offer(program, 'aaaaaaaaaaa', video, start)
    program.run('--ext', 'wav')
    (record,) = program.metadata.values()
    assert record['duration'] == pytest.approx(duration, abs=0.06)
    assert abs(offset(program.clip(), start, duration)) <= 0.002
    assert program.site.counts['player'] <= 3


def test_the_record_tells_the_language(program: Program) -> None:
    offer(program, 'aaaaaaaaaaa', Video(SECONDS, shape='dubbed'), 10)
    program.run()
    assert program.metadata['id_aaaaaaaaaaa']['language'] == 'en'


def test_media_are_not_asked_for_too_early(program: Program) -> None:
    offer(program, 'aaaaaaaaaaa', Video(SECONDS, wait=2), 10)
    program.run('--retries', '0')
    assert len(program.metadata) == 1


@pytest.mark.parametrize('fault', ['media 403', 'media 500', 'media drop', 'media truncate', 'manifest 500'])
@pytest.mark.parametrize('shape', ['hls', 'dash'])
def test_what_comes_whole_may_fail_too(program: Program, shape: str, fault: str) -> None:
    """A lost segment fails the row, and leaves nothing behind; else what follows it would move."""
    video = Video(SECONDS, shape=shape, fault=fault, segment=4 if shape == 'hls' and 'media' in fault else None)
    offer(program, 'aaaaaaaaaaa', video, 30)
    program.run('--retries', '0', status=1)
    assert program.reasons['aaaaaaaaaaa'][0] == 'failed'
    assert not program.clips()
    assert not program.leftovers()
    video.fault = ''
    program.run('--ext', 'wav')
    assert abs(offset(program.clip(), 30, 10)) <= 0.002


def test_a_video_that_is_too_large_to_be_downloaded_whole(program: Program) -> None:
    offer(program, 'aaaaaaaaaaa', Video(SECONDS, shape='hls'), 30)
    program.edit('LARGEST = 1 << 29', 'LARGEST = 200_000')
    program.run(status=1)
    assert program.reasons == {'aaaaaaaaaaa': ('failed', 'too large')}
    assert program.site.counts['bytes'] < 500_000
    assert not program.leftovers()


def test_somebodys_own_format_takes_no_dub(program: Program) -> None:
    offer(program, 'aaaaaaaaaaa', Video(SECONDS, shape='dub only'), 10)
    program.run('--ydl-opts', '{"format": "bestaudio"}', status=1)
    assert program.reasons == {'aaaaaaaaaaa': ('failed', 'dubbed')}
    program.site.videos['aaaaaaaaaaa'] = Video(SECONDS, shape='dubbed')
    program.run('--ydl-opts', '{"format": "bestaudio"}')
    assert abs(offset(program.clip(), 10, 10)) <= 0.025
