/* The open conversation: read and shown, with what other tabs make of it, and its versions. */

import { ACTIVE } from "./answers.js";
import { again, edit, show, stopped } from "./asking.js";
import * as composer from "./composer.js";
import * as exchanges from "./exchanges.js";
import { addressInAPI, opened, open as openNext } from "./opened.js";
import { get, refused } from "./reading.js";
import { ended, isRunning, run } from "./running.js";
import * as scrolling from "./scrolling.js";
import * as transcript from "./transcript.js";
import * as versions from "./versions.js";

let chosen = null; // the version that shall be shown
let looking = null; // until it is known what other tabs have asked meanwhile
let lookAnew = false; // once more: what is on its way may be older
let onTitle = () => null; // gets the id of a conversation that was read, and its title
let loaded = Promise.resolve(true); // resolves with whether what is open could be read
let reading = loaded; // until what a prompt would follow is shown

exchanges.whenChosen(choose);

export function whenTitled(callback) {
  onTitle = callback;
}

/** Resolves when it is known what a prompt would follow, also right after Stop; with false when
 *  something else is open by then. */
export async function settled() {
  const mine = opened.view;
  await stopped();
  if (!isRunning()) await reading;
  return mine === opened.view;
}

/** Show this conversation, and follow its last answer if it grows; null for a new one. */
export async function open(id) {
  openNext(id);
  run(null);
  composer.notice();
  transcript.edits().forEach(composer.giveBack);
  exchanges.clear();
  versions.know([]);
  composer.allow(false); // what is asked must follow what is there
  if (id === null) showNothing();
  loaded = id === null ? Promise.resolve(true) : load(opened.view);
  await (reading = loaded);
}

async function load(mine) {
  try {
    const { title, path, tree } = await get(addressInAPI(), mine);
    onTitle(opened.id, title);
    if (!path.length) showNothing();
    opened.newest = endOf(path);
    showBeside(path, tree, mine);
    scrolling.toEnd();
    composer.allow(true);
    return true;
  } catch (error) {
    refused(error, mine);
    return false;
  }
}

/** Show what other tabs have made of the conversation meanwhile. */
export function reread() {
  lookAnew = true;
  looking ??= look();
  const done = looking;
  reading = reading.then(() => done);
}

async function look() {
  try {
    do {
      lookAnew = false;
      await lookOnce(opened.view);
    } while (lookAnew);
  } finally {
    looking = null;
  }
}

async function lookOnce(mine) {
  try {
    const isThere = await loaded;
    await ended();
    if (opened.id === null || mine !== opened.view) return;
    if (!isThere) {
      loaded = load(mine);
      if (await loaded) composer.notice(); // it said why it could not be read
      return;
    }
    const before = ended();
    const { path, tree } = await get(addressInAPI(), mine);
    if (ended() !== before) {
      lookAnew = true; // something was asked here meanwhile, of which this look may not know
      return;
    }
    // What is shown may be another version: only what nobody has seen yet leads away from that.
    if (endOf(path) === opened.newest) return;
    if (transcript.isEdited()) {
      versions.know(tree); // what is being written stays, until it is asked or left
      exchanges.markVersions();
      return;
    }
    opened.newest = endOf(path);
    showBeside(path, tree, mine);
  } catch (error) {
    refused(error, mine);
  }
}

/** Show another version of a prompt or an answer, with what came behind it; of several that are
 *  chosen quickly, the last. */
function choose(version, index, part, step) {
  chosen = version;
  const done = showVersion(version, opened.view, () => {
    const turn = exchanges.at(index)[part];
    if (document.activeElement !== document.body) return; // not on what was pressed: that is gone
    if (turn) transcript.focusVersion(turn, step); // a prompt without words is not shown
  });
  reading = reading.then(() => done);
}

async function showVersion(version, mine, then) {
  try {
    const address = `${addressInAPI()}?response=${versions.endOf(version)}`;
    const before = ended();
    const { path, tree } = await get(address, mine);
    // Who has asked something meanwhile wants to see that; it may not be in this tree.
    if (version !== chosen || ended() !== before) return;
    scrolling.inPlace(() => showBeside(path, tree, mine));
    then();
  } catch (error) {
    refused(error, mine);
  }
}

/** As `showPath`, without waiting for an answer that grows. */
function showBeside(path, tree, mine) {
  showPath(path, tree, mine)?.catch((error) => refused(error, mine));
}

/** Show a path, of which some may be there already. Returns what resolves when an answer at its
 *  end has grown. */
function showPath(path, tree, mine) {
  const turns = exchanges.ofPath(path);
  const same = exchanges.shared(turns);
  let growing = null;
  scrolling.stayAtEndOfAll(() => {
    composer.rescue(() => exchanges.cut(same));
    growing = turns.slice(same).map((turn) => showStored(turn, mine)).at(-1);
    versions.know(tree);
    exchanges.markVersions();
  });
  return growing;
}

function endOf(path) {
  return path.at(-1)?.response ?? null;
}

function showStored({ row, ...turn }, mine) {
  const exchange = exchanges.add(turn, edit);
  exchange.answer = transcript.addAnswer(exchange.asked && (() => again(exchange)));
  if (ACTIVE.includes(row.status)) return show(exchange, row, mine);
  exchange.row = row;
  exchange.answer.show(row.text);
  exchange.answer.end(row);
  return null;
}

function showNothing() {
  transcript.showEmpty();
  composer.allow(true);
}
