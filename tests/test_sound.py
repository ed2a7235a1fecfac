"""Which of the sounds that YouTube offers a clip is made of, from which second, and when there is none to be had."""

import pytest

import youtube as stand_in
from conftest import Program, listen, look, offset, thorough
from youtube import Video

SECONDS = 60.0
STARTS = [0, 15, 21.337, 53]  # s: the first one, at a border of HLS segments, between packets, the last ones
FAR = [0, 30, 127.345, 590]
TRACKS = {'dubbed', 'default dub', 'described', 'drc'}  # where only the choice differs, two starts are enough
DAMAGED = dict.fromkeys(('139', '140', '249', '250', '251'), 5.0)
SHAPES = {
    'plain': Video(),
    'WebM only': Video(lacks='audio/mp4'),
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
@pytest.mark.parametrize('ext', ['m4a', 'wav', 'mp4', *thorough('flac', 'opus', 'mp3')])
def test_every_shape_gives_the_right_seconds(program: Program, ext: str) -> None:
    wanted = {}
    for shape, video in SHAPES.items():
        stand_in.prepare(video)
        few = shape in TRACKS or ext in ('flac', 'opus', 'mp3')
        for start in FAR if video.seconds > SECONDS else STARTS[:: 2 if few else 1]:
            ytid = f'{len(wanted):011}'
            program.site.videos[ytid], wanted[ytid] = video, (shape, start)
    program.offer(*(row(ytid, start) for ytid, (_, start) in wanted.items()))
    program.run('--ext', ext)
    exact = 0.002 if ext in ('wav', 'flac') else 0.025
    off = {}
    for ytid, (shape, start) in wanted.items():
        clip, length = program.clip(ytid), min(10, SHAPES[shape].seconds - start)
        off[shape, start] = offset(clip, start, length)
        assert len(listen(clip)) / 44100 == pytest.approx(length, abs=exact + 0.08), (shape, start)
        if ext == 'mp4':
            assert abs(look(clip)[0] - round(start * stand_in.FPS)) <= 1, (shape, start)
    assert {case: by for case, by in off.items() if abs(by) > exact} == {}
    asked = program.site.counts.copy()
    assert sum(program.site.asked['player', f'{n:011}'] for n in range(4)) == 4, 'one request for what is plain'
    program.run('--ext', ext)
    assert program.site.counts == asked, 'nothing that is settled is asked for again'
    assert not program.leftovers()


NO_CLIP = {  # what is wrong -> a video, from where (s), what becomes of it
    'a dub instead': (Video(SECONDS, shape='dub only'), 10, ('failed', 'dubbed')),
    'a dub instead, as the default': (Video(SECONDS, shape='dub only default'), 10, ('failed', 'dubbed')),
    'a description instead': (Video(SECONDS, shape='described only'), 10, ('failed', 'dubbed')),
    'a dub instead, in HLS': (Video(SECONDS, shape='hls dub only'), 10, ('failed', 'dubbed')),
    'even loudness instead': (Video(SECONDS, shape='drc only'), 10, ('failed', 'dubbed')),
    'without sound': (Video(SECONDS, shape='mute'), 10, ('gone', 'no sound')),
    'ends at the start': (Video(40.0), 40, ('gone', 'too short')),
    'ends before the start': (Video(40.0), 40.5, ('gone', 'too short')),
    'ends with it': (Video(40.0), 39.95, ('gone', 'too short')),
    'damaged beyond that': (Video(SECONDS, damaged=DAMAGED), 45, ('failed', 'damaged')),
    'a second answer that breaks': (Video(fault='age', shape='no context'), 10, ('gone', 'age')),
    'a second answer that breaks otherwise': (Video(fault='age', shape='odd page'), 10, ('gone', 'age')),
}


def offer_all(program: Program, *cases: tuple[Video, float]) -> list[str]:
    """A row for each video, from so many s of it; returns their ids."""
    ids = [f'{n:011}' for n in range(len(cases))]
    for ytid, (video, _) in zip(ids, cases, strict=True):
        stand_in.prepare(video)
        program.site.videos[ytid] = video
    program.offer(*(row(ytid, start) for ytid, (_, start) in zip(ids, cases, strict=True)))
    return ids


def test_what_is_no_clip(program: Program) -> None:
    ids = offer_all(program, *(case[:2] for case in NO_CLIP.values()))
    fates = dict(zip(ids, (fate for *_, fate in NO_CLIP.values()), strict=True))
    program.run('--retries', '1', status=1)
    assert program.reasons == fates
    assert not program.clips()
    assert not program.site.counts['media']
    asked = {ytid: program.site.asked['player', ytid] for ytid in ids}
    program.run('--retries', '1', status=1)
    times = {ytid: 1 if fates[ytid][0] == 'gone' else 2 for ytid in ids}
    assert {ytid: program.site.asked['player', ytid] for ytid in ids} == {
        ytid: asked[ytid] * times[ytid] for ytid in ids
    }, 'once a run'


PARTS = {  # why -> a video, from where, how much of it there is (s)
    'the sound ends early': (Video(SECONDS, shape='18', sound_ends=0.8), 50, 9.2),
    'within the row': (Video(SECONDS, shape='18', sound_ends=0.8), 49.5, 9.7),
    'the end of HLS': (Video(36.6, shape='hls'), 30, 6.6),
    'the sound ends long before': (Video(SECONDS, shape='18', sound_ends=3.0), 48, 9.0),
    'a damaged format beside a whole one': (Video(120.0, damaged={'140': 5.0}), 45, 10),
    'which holds a part of the row': (Video(120.0, damaged={'140': 5.0}), 2, 10),
    'ends within the segment': (Video(36.6), 30, 6.6),
    'ends with it': (Video(40.0), 30, 10),
    'ends soon after the start': (Video(31.4), 30, 1.4),
}


def test_a_clip_is_what_there_is(program: Program) -> None:
    ids = offer_all(program, *(case[:2] for case in PARTS.values()))
    program.run('--ext', 'wav')
    for ytid, (case, (_, start, duration)) in zip(ids, PARTS.items(), strict=True):
        assert program.metadata[f'id_{ytid}']['duration'] == pytest.approx(duration, abs=0.06), case
        assert abs(offset(program.clip(ytid), start, duration)) <= 0.002, case
        assert program.site.asked['player', ytid] <= 3, case


def test_the_record_tells_the_language(program: Program) -> None:
    offer(program, 'aaaaaaaaaaa', Video(SECONDS, shape='dubbed'), 10)
    program.run()
    assert program.metadata['id_aaaaaaaaaaa']['language'] == 'en'


def test_media_are_not_asked_for_too_early(program: Program) -> None:
    offer(program, 'aaaaaaaaaaa', Video(SECONDS, wait=2), 10)
    program.run('--retries', '0')
    assert len(program.metadata) == 1


@pytest.mark.parametrize('shape', ['hls', 'dash'])
def test_what_comes_whole_may_fail_too(program: Program, shape: str) -> None:
    """A lost segment fails the row, and leaves nothing behind; else what follows it would move."""
    faults = ['media 403', 'media 500', 'media drop', 'media truncate', 'manifest 500']
    segments = [4 if shape == 'hls' and 'media' in fault else None for fault in faults]
    broken = [Video(SECONDS, shape=shape, fault=fault, segment=at) for fault, at in zip(faults, segments, strict=True)]
    ids = offer_all(program, *((video, 30) for video in [*[Video(SECONDS)] * 15, *broken]))[15:]
    program.run('--retries', '0', status=1)
    assert {ytid for ytid, (status, _) in program.reasons.items() if status == 'failed'} == {*ids}
    assert len(program.clips()) == 15
    assert not program.leftovers()
    for video in broken:
        video.fault = ''
    program.run()
    assert max(abs(offset(program.clip(ytid), 30, 10)) for ytid in ids) <= 0.025


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
