"""What YouTube and the network can say instead of giving a clip, and what becomes of the row."""

import re

import pytest

from conftest import Program, offset
from download import judge
from youtube import Video

GOOD, BAD = 'ggggggggggg', 'bbbbbbbbbbb'
NETWORK = (
    'This video is restricted. '
    'Please check the Google Workspace administrator and/or the network administrator restrictions'
)


def two_rows(program: Program, **video: object) -> None:
    program.offer(f'{BAD}, 30.000, 40.000, "/m/09x0r"', f'{GOOD}, 30.000, 40.000, "/m/09x0r"')
    program.site.videos[BAD] = Video(**video)


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        *((fault, fault) for fault in ['private', 'removed', 'terminated', 'copyright', 'country', 'age', 'members']),
        ('unavailable', 'unavailable'),
    ],
)
def test_gone(program: Program, fault: str, reason: str) -> None:
    two_rows(program, fault=fault)
    said = program.run()
    assert program.reasons[BAD] == ('gone', reason)
    assert program.reasons[GOOD][0] == 'done'
    assert list(program.metadata) == [f'id_{GOOD}']
    assert f'  {reason} ' in said.stdout
    asked = program.site.asked['player', BAD]
    program.run()
    assert program.site.asked['player', BAD] == asked


def test_words_about_a_network_are_a_refusal_of_the_route(program: Program) -> None:
    program.offer(*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(12)))
    program.site.healthy = Video(says=('ERROR', 'Video unavailable', NETWORK))
    said = program.run('--give-up-after', '1', status=1)
    assert 'YouTube refuses us (blocked: ' in said.stdout
    assert not program.reasons


@pytest.mark.parametrize('fault', ['bot', 'unavailable', 'kids', 'age', 'player 403', 'player 429'])
def test_the_cheap_request_alone_is_not_believed(program: Program, fault: str) -> None:
    two_rows(program, fault=fault, minimal=True)
    program.run()
    assert program.reasons[BAD][0] == 'done'
    if fault in ('unavailable', 'kids', 'age'):  # else it is the route that is refused, and a probe asks in full
        assert program.site.asked['page', BAD] == 1
        assert not program.site.asked['page', GOOD]


def test_the_cheap_request_is_given_up_when_it_keeps_failing(program: Program) -> None:
    rows = [f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(12)]
    program.offer(*rows)
    program.site.healthy = Video(fault='unavailable', minimal=True)
    said = program.run('--num-processes', '1')
    assert 'going on with the full one' in said.stdout
    assert len(program.metadata) == 12
    assert program.site.asked['page', rows[-1][:11]] == 1
    assert program.site.asked['player', rows[-1][:11]] < program.site.asked['player', rows[0][:11]]


@pytest.mark.parametrize(
    'fault',
    [
        'player 500',
        'player drop',
        'player garbage',
        'media 403',
        'media 500',
        'media drop',
        'media truncate',
        'media stall',
    ],
)
def test_a_passing_failure_is_tried_again(program: Program, fault: str) -> None:
    two_rows(program, fault=fault, times=1)
    program.run()
    assert program.site.videos[BAD].times == 0, 'it happened'
    assert {status for status, _ in program.reasons.values()} == {'done'}
    assert abs(offset(program.clip(BAD), 30, 10)) <= 0.025
    assert not program.leftovers()


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        ('player 500', 'network'),
        ('player stall', 'network'),
        ('player garbage', 'network'),
        ('media 403', 'media 403'),
        ('media 404', 'media'),
        ('media truncate', 'wrong length'),
        ('media stall', 'wrong length'),
    ],
)
def test_a_lasting_failure_is_recorded_and_tried_by_the_next_run(program: Program, fault: str, reason: str) -> None:
    two_rows(program, fault=fault)
    said = program.run('--retries', '1', '--timeout', '1', status=1)
    assert program.reasons[BAD] == ('failed', reason)
    assert [path.name for path in program.clips()] == [f'id_{GOOD}.m4a']
    assert f'  {reason} ' in said.stdout
    program.site.videos.clear()
    program.run()
    assert program.reasons[BAD][0] == 'done'


def test_an_upcoming_video_is_asked_for_once_per_run(program: Program) -> None:
    two_rows(program, fault='upcoming')
    program.run(status=1)
    assert program.reasons[BAD] == ('failed', 'live')
    assert program.site.asked['player', BAD] == 1


def test_what_cannot_work_for_any_row_stops_the_run(program: Program) -> None:
    program.offer(*(f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(60)))
    process = program.start('--num-processes', '2', '--ydl-opts', '{"format": "nothing"}')
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert re.search(r'^stopped: 1\d rows failed one after the other .*run the same command again$', err, re.M)
    assert program.site.counts['page'] < 60


def test_gone_rows_are_asked_for_again_on_request(program: Program) -> None:
    two_rows(program, fault='age')
    program.run()
    program.site.videos.clear()
    program.run('--again', 'country')
    assert program.reasons[BAD] == ('gone', 'age')
    program.site.videos[BAD] = Video(fault='country')
    program.run('--again', 'age')
    assert program.reasons[BAD] == ('gone', 'country')
    program.site.videos.clear()
    program.run('--again', 'age')
    assert program.reasons[BAD] == ('gone', 'country')
    program.run('--again', 'country')
    assert program.reasons[BAD][0] == 'done'


@pytest.mark.parametrize(
    ('words', 'verdict', 'reason'),
    [
        ("Private video. Sign in if you've been granted access to this video", 'gone', 'private'),
        ('Sign in to confirm you’re not a bot. Use --cookies', 'throttled', 'bot check'),
        ('SIGN IN TO CONFIRM YOUR AGE', 'gone', 'age'),
        ('All player responses are invalid. Your IP is likely being blocked by Youtube', 'throttled', 'blocked'),
        ("Video unavailable. This content isn't available, try again later.", 'throttled', 'rate limit'),
        ('Unable to download API page: HTTP Error 429: Too Many Requests', 'throttled', 'rate limit'),
        ('The provided YouTube account cookies are no longer valid', 'throttled', 'cookies'),
        ('This live event will begin in 3 days.', 'later', 'live'),
        ('[Errno -3] Temporary failure in name resolution', 'doubt', 'network'),
        ('Requested format is not available', 'failed', 'no format'),
        ('ffmpeg: [https @ 0x1] HTTP error 403 Forbidden\nError opening input', 'doubt', 'media 403'),
        ('ffmpeg: Error opening input: Server returned 429 Too Many Requests', 'throttled', 'rate limit'),
        ('ffmpeg: [tcp @ 0x1] Connection to tcp://127.0.0.1:9 failed: Connection refused', 'doubt', 'media'),
        ('ffmpeg made 0.000 s instead of 10.000 s. ', 'doubt', 'wrong length'),
        ('ffmpeg: av_interleaved_write_frame(): No space left on device', 'stop', 'system'),
        ('ffmpeg: ERROR: ffmpeg exited with code 228', 'stop', 'system'),
        ('ffmpeg: ERROR: ffmpeg exited with code 1', 'failed', 'media'),
        ('ffmpeg: /data/x.m4a: Disk quota exceeded', 'stop', 'system'),
        ('The video ends at 20.000 s, before 30.0 s', 'gone', 'too short'),
        ('This video is not available', 'gone', 'unavailable'),
        (f'Video unavailable. {NETWORK}', 'throttled', 'blocked'),
        ('Your account is restricted from watching this', 'throttled', 'blocked'),
        ('This video is unavailable with Restricted Mode enabled', 'throttled', 'blocked'),
        ('Video unavailable. This account has been closed', 'gone', 'terminated'),
        ('ffmpeg: [https @ 0x55e4034c] HTTP error 500', 'doubt', 'media'),
        ('the YouTube account associated with this video has been terminated.', 'gone', 'terminated'),
        ('download: ERROR: HTTP Error 403: Forbidden', 'doubt', 'media 403'),
        ('download: ERROR: fragment 3 not found, unable to continue', 'doubt', 'media'),
        ('download: more than 537 MB for a video that only comes whole', 'later', 'too large'),
        ('the original sound has no address, only other tracks have one', 'later', 'dubbed'),
        ('the video has no sound', 'gone', 'no sound'),
        ('every format with sound ends at 5.000 s, the video at 120 s', 'later', 'damaged'),
        ("KeyError: 'INNERTUBE_CONTEXT'", 'failed', 'other'),
        ('something never seen before', 'failed', 'other'),
        ('[Errno 11] Resource temporarily unavailable', 'failed', 'other'),
        ('HTTP Error 503: Service Unavailable', 'doubt', 'network'),
    ],
)
def test_words_and_their_meaning(words: str, verdict: str, reason: str) -> None:
    assert judge(words)[:2] == (reason, verdict)
