"""`--report page.html`, in a real browser: Chromium, without a window."""

import contextlib
import csv
import json
import pathlib
import shutil
import socket
from collections.abc import Iterator

import pytest

import download
import youtube as stand_in
from conftest import Program, wait_for

NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'chrome']
CHROMIUM, DRIVER = next(filter(None, map(shutil.which, NAMES)), None), shutil.which('chromedriver')
FLAGS = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--autoplay-policy=no-user-gesture-required',
]  # fmt: skip
ROWS = [
    f'{"A" * 11}, 30.000, 40.000, "/m/09x0r,/m/068hy"', f'{"B" * 11}, 30.000, 40.000, "/m/09x0r"',
    f'{"C" * 11}, 30.000, 40.000, "/m/05zppz"', f'{"D" * 11}, 30.000, 40.000, "/m/068hy"',
    f'{"E" * 11}, 30.000, 40.000, "/m/068hy"',
]  # fmt: skip
EVIL = '<img src=x onerror="document.title = 1">\u2028</script><script>document.title = 2</script><!--'
CONTRAST = """  // the texts whose colour stands out by less than 4.5:1, with that
const light = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
const parts = colour => colour.match(/[\\d.]+/g).map(Number)
const luminance = colour => parts(colour).slice(0, 3).map(part => light(part / 255))
  .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0)
const behind = element => parts(getComputedStyle(element).backgroundColor)[3] === 0 && element.parentElement ?
  behind(element.parentElement) : getComputedStyle(element).backgroundColor
return [...document.querySelectorAll('body *')].filter(one => one.checkVisibility() && !one.matches('.key, script') &&
  [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(one => {
  const [low, high] = [getComputedStyle(one).color, behind(one)].map(luminance).sort((a, b) => a - b)
  return [one.textContent, (high + 0.05) / (low + 0.05)]
}).filter(([, ratio]) => ratio < 4.5)"""


@pytest.fixture(scope='module')
def browser() -> Iterator[object]:
    if not (CHROMIUM and DRIVER):
        pytest.skip('NO BROWSER: install chromium and chromium-driver')
    webdriver = pytest.importorskip('selenium.webdriver', reason='NO SELENIUM: pip install -r tests/requirements.txt')
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Two clips, one with an evil title and caption, a row that is private, one that failed, one that is left."""
    with stand_in.YouTube() as site:
        program = Program(tmp_path_factory.mktemp('page') / 'a # folder', site)
        program.offer(*ROWS)
        site.files['ontology.json'] = stand_in.ONTOLOGY
        for ytid, video in {'A': {'title': EVIL}, 'C': {'fault': 'private'}, 'D': {'fault': 'media 500'}}.items():
            site.add(ytid * 11, **video)
        (program.root / 'csvs').mkdir(parents=True)
        told = f'ytid,start,end,label,caption\n{"A" * 11},30,40,Own,"{EVIL.replace(chr(34), chr(39))}"\n'
        (program.root / 'csvs' / 'own.csv').write_text(told, encoding='utf-8', newline='\n')
        program.run('--splits', 'eval', 'own', '--limit', '4', '--retries', '0', status=1)
        yield program


def report(program: Program, *flags: str) -> pathlib.Path:
    page = program.root / 'page.html'
    program.run('--splits', 'eval', 'own', *flags, '--report', str(page))
    return page


def show(browser: object, page: pathlib.Path) -> None:
    """Open a page; what was logged before is forgotten."""
    for kind in ('browser', 'performance'):
        browser.get_log(kind)
    browser.get(page.as_uri())
    assert errors(browser) == []


def errors(browser: object) -> list[str]:
    return [entry['message'] for entry in browser.get_log('browser')]


def requests(browser: object) -> list[str]:
    """The addresses that were asked for since; without the pictures that Chromium's own players bring."""
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    asked = [event['params']['request']['url'] for event in events if event['method'] == 'Network.requestWillBeSent']
    return [address for address in asked if not address.startswith('data:image/svg+xml')]


def texts(browser: object, selector: str) -> list[str]:
    return browser.execute_script(
        'return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)', selector
    )


def table(browser: object, name: str) -> dict[str, list[str]]:
    """The rows of a table by their first cells."""
    cells = 'row => [...row.cells].map(cell => cell.textContent)'
    rows = browser.execute_script(f'return [...document.querySelectorAll("#{name} tr")].map({cells})')
    return {first: rest[: len(rest) - 1] for first, *rest in rows}


def press(browser: object, selector: str) -> None:
    browser.execute_script('document.querySelector(arguments[0]).click()', selector)


def test_the_numbers_are_the_ledgers(browser: object, program: Program) -> None:
    show(browser, report(program))
    facts = dict(zip(texts(browser, 'dt'), texts(browser, 'dd'), strict=True))
    ((seconds, size),) = program.ask('SELECT sum(duration), sum(bytes) FROM clip')
    assert facts['rows'] == '5'
    assert facts['done'] == '2 (40.0 %)'
    assert facts['gone'] == '1 (20.0 %)'
    assert facts['left to try'] == '2 (1 failed)'
    assert facts['sound'] == f'{seconds / 3600:.2f} hours'
    assert facts['on the disk'] == f'{size / 1e9:.3f} GB'
    assert table(browser, 'lists')['eval'] == ['5', '2', '1', '2', '1']
    losses = table(browser, 'losses')
    assert losses['private'] == ['1', '0', 'The owner has hidden the video. Nothing mends that.']
    assert [losses[reason][:2] for (_, reason) in program.reasons.values() if reason not in ('', 'private')] == [
        ['0', '1']
    ]
    program.run('--splits', 'eval', 'own', '--report', str(program.root / 'report.csv'))
    with open(program.root / 'report.csv', encoding='utf-8', newline='') as lines:
        told = {row['label']: row for row in csv.DictReader(lines)}
    for name, (rows, there, left, lost) in table(browser, 'classes').items():
        row = told.pop(name)
        assert [rows, there, left] == [row['rows'], row['there'], row['left']]
        assert lost == f'{100 * float(row["lost"]):.1f} %'
    assert not told


def test_classes_are_sorted_filtered_and_in_branches(browser: object, program: Program) -> None:
    show(browser, report(program))
    assert next(iter(table(browser, 'classes'))) == 'Male speech, man speaking'
    press(browser, '#heads [value=rows]')
    assert [row[0] for row in table(browser, 'classes').values()] == ['3', '2', '1', '1']
    press(browser, '#heads [value=rows]')
    assert [row[0] for row in table(browser, 'classes').values()] == ['1', '1', '2', '3']
    assert browser.execute_script('return document.querySelector("#heads th:nth-child(2)").ariaSort') == 'ascending'
    browser.find_element('id', 'filter').send_keys('SPEECH')
    assert set(table(browser, 'classes')) == {'Male speech, man speaking', 'Speech'}
    browser.find_element('id', 'filter').clear()
    press(browser, '#tree')
    assert set(table(browser, 'classes')) == {'▸Human sounds', 'Domestic animals, pets', 'Own'}
    for branch, opened in [('Human sounds', '▸Speech'), ('Speech', 'Male speech, man speaking')]:
        press(browser, f'[aria-label="below {branch}"]')
        assert opened in table(browser, 'classes')
    press(browser, '[aria-label="below Human sounds"]')
    assert len(table(browser, 'classes')) == 3


@pytest.mark.parametrize('ext', ['m4a', 'mp4'])
def test_the_clips_of_a_class_play(browser: object, program: Program, ext: str) -> None:
    program.run('--splits', 'eval', 'own', '--limit', '2', '--ext', ext)
    show(browser, report(program, '--ext', ext))
    press(browser, '#classes button[title=listen]')
    assert browser.switch_to.active_element.get_attribute('id') == 'class'
    assert requests(browser) == [(program.root / 'page.html').as_uri()], 'nothing is loaded until it is asked for'
    browser.execute_script('window.player = document.querySelector("audio, video"); player.play()')
    wait_for(lambda: browser.execute_script('return player.currentTime') > 0.3)
    assert browser.execute_script('return player.duration') == pytest.approx(10, abs=0.2)
    assert (browser.execute_script('return player.videoWidth || 0') > 0) == (ext == 'mp4')
    assert all(address.startswith('file:') for address in requests(browser))
    assert errors(browser) == []


def test_again_brings_other_clips(browser: object, program: Program) -> None:
    show(browser, report(program))
    browser.execute_script('many.value = 1; many.onchange()')
    one = texts(browser, '#clips a')
    press(browser, '#again')
    assert len(one) == 1
    assert texts(browser, '#clips a') != one
    links = browser.execute_script('return [...document.querySelectorAll("#clips a")].map(one => one.href)')
    assert links[0] in {f'https://www.youtube.com/watch?v={ytid * 11}&t=30s' for ytid in 'AB'}


def test_strangers_words_stay_text(browser: object, program: Program) -> None:
    show(browser, report(program))
    assert EVIL in texts(browser, '#clips h3')
    assert EVIL.replace('"', "'") in texts(browser, '#clips p')
    assert browser.title == 'AudioSet: what came of it'
    assert texts(browser, 'img') == []
    assert len(texts(browser, 'script')) == 2


def heard(server: socket.socket) -> bytes:
    """What a browser has sent; to connect and say nothing is Chromium's way to be ready for a frame."""
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        connection, _ = server.accept()
        with connection:
            connection.setblocking(False)
            return connection.recv(1000)
    return b''


@pytest.mark.parametrize(
    'attempt',
    [
        pytest.param('fetch(ADDRESS).catch(() => 0)', id='fetch'),
        pytest.param('new Image().src = ADDRESS', id='image'),
        pytest.param('add("script", {src: ADDRESS})', id='script'),
        pytest.param('add("script", {textContent: "document.title = 3"})', id='inline script'),
        pytest.param('add("iframe", {src: ADDRESS})', id='frame'),
        pytest.param('add("audio", {src: ADDRESS, preload: "auto"})', id='sound'),
    ],
)
def test_the_policy_forbids(browser: object, program: Program, attempt: str) -> None:
    show(browser, report(program))
    add = 'const add = (name, what) => document.body.append(Object.assign(document.createElement(name), what));'
    with socket.create_server(('127.0.0.1', 0)) as server:
        browser.execute_script(add + attempt.replace('ADDRESS', f'"http://127.0.0.1:{server.getsockname()[1]}/x"'))
        wait_for(lambda: any('Content Security Policy' in message for message in errors(browser)))
        assert heard(server) == b''
    assert browser.title == 'AudioSet: what came of it'


def test_a_page_saved_elsewhere_says_where_it_looked(browser: object, program: Program, tmp_path: pathlib.Path) -> None:
    page = pathlib.Path(shutil.copy(report(program), tmp_path))
    show(browser, page)
    browser.execute_script('document.querySelector("audio").play().catch(() => 0)')
    wait_for(lambda: any(str(tmp_path) in words for words in texts(browser, '[role=alert]')))


@pytest.mark.parametrize('width', [400, 1400])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_everybody_can_read_it(browser: object, program: Program, width: int, theme: str) -> None:
    size = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    scheme = [{'name': 'prefers-color-scheme', 'value': theme}]
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': scheme})
    show(browser, report(program))
    assert browser.execute_script('return document.documentElement.scrollWidth - innerWidth') <= 0
    assert browser.execute_script(CONTRAST) == []
    for element in browser.find_elements('css selector', 'input, select, button, audio, [role=img], [role=region]'):
        assert element.accessible_name, element.get_attribute('outerHTML')


def test_only_some_classes(browser: object, program: Program) -> None:
    show(browser, report(program, '--labels', 'Own', '--no-descendants'))
    assert set(table(browser, 'classes')) == {'Own'}
    assert len(texts(browser, '#clips li')) == 1


def test_before_the_first_clip(browser: object, tmp_path: pathlib.Path, site: stand_in.YouTube) -> None:
    """And without an ontology."""
    program = Program(tmp_path / 'audioset', site)
    program.offer(*ROWS)
    (program.root / 'csvs').mkdir(parents=True)
    (program.root / 'csvs' / 'own.csv').write_text('ytid,start,caption\nAAAAAAAAAAA,30,words\n')
    show(browser, report(program))
    assert table(browser, 'lists')['eval'] == ['5', '0', '0', '5', '0']
    assert not browser.find_element('id', 'tree').is_displayed()


def test_beside_a_run(browser: object, program: Program) -> None:
    with download.claim(program.root / 'wavs' / 'm4a.sqlite3'):
        show(browser, report(program))
    assert table(browser, 'lists')['all'][0] == '5'


@pytest.mark.parametrize('page', ['page.html', 'deep/page.html', '../page.html'])
def test_the_way_to_the_clips(tmp_path: pathlib.Path, page: str) -> None:
    root = tmp_path / 'ö #'
    way = {'page.html': './', 'deep/page.html': '../', '../page.html': '%C3%B6%20%23/'}
    assert download.way_to(root, root / page) == way[page]


def test_every_reason_has_a_meaning() -> None:
    told = {reason for reason, verdict, *_ in download.VERDICTS if verdict not in (download.THROTTLED, download.STOP)}
    assert told | {download.DIED, 'unexpected'} <= download.MEANINGS.keys()
