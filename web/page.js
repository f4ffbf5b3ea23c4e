// What people see of a backend: the vector that counts, its miners, its cycles. It asks the public API for what is shown, again
// every few seconds while somebody looks. Whatever comes from there is text, never markup: miners choose some of it.

const PERIOD = 5000;
const PATIENCE = 15000;
const main = document.querySelector("main");
const trouble = document.querySelector("#trouble");
const keyForm = document.querySelector("#key");

// Elements ----------------------------------------------------------------------------------------------------------------

/** An element with attributes; children are elements or text, and nothing where they are null. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) if (value != null) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter((child) => child != null).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

const number = (value) => el("td", { class: "number" }, value ?? "-");
const cell = (...children) => el("td", null, ...children);
const link = (to, text) => el("a", { href: `#/${to}` }, text);
const minerLink = (hotkey) => link(`miners/${encodeURIComponent(hotkey)}`, hotkey);
const cycleLink = (id, text = id) => (id == null ? "-" : link(`cycles/${id}`, text));

/** A table; `columns` are names, or `[name, class]`. */
function table(columns, rows, empty) {
  if (rows.length === 0) return el("p", null, empty);
  const heads = columns.map((column) => [column].flat()).map(([name, kind]) => el("th", { scope: "col", class: kind }, name));
  return el("div", { class: "wide" }, el("table", null, el("thead", null, el("tr", null, heads)), el("tbody", null, rows.map((row) => el("tr", null, row)))));
}

/** What is known of one thing, line by line; without those that nothing is known of. */
function facts(...pairs) {
  const known = pairs.filter(([, value]) => value != null && value !== "");
  return el("dl", null, known.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
}

const GOOD = ["fresh", "completed", "succeeded", "ok", "active", "success"];
const BAD = ["stale", "held", "failed", "unreachable", "refused", "miner_fault", "interrupted"];
const word = (text) => el("span", { class: `word ${GOOD.includes(text) ? "good" : BAD.includes(text) ? "bad" : ""}` }, text);

const percent = (share, digits = 0) => (share == null ? "-" : `${(100 * share).toFixed(digits)} %`);
const moment = (text) => (text == null ? null : el("time", { datetime: text }, new Date(text).toLocaleString()));

/** A text that is another one at every look: only it is renewed then, not what stands around it. */
const ticking = (text) => el("span", { "data-ticks": "" }, text);

function span(seconds) {
  if (seconds == null) return "-";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const bounds = ([low, high]) => `${percent(low)} to ${percent(high)}`;

/** A success rate on a colour from bad to good, with its interval for whoever points at it. */
function rate(entry) {
  if (entry == null) return number(null);
  const { success_rate: value, interval, episodes } = entry;
  const [colour, depth] = value >= 0.5 ? ["--good", value - 0.5] : ["--bad", 0.5 - value];
  const shown = el("td", { class: "rate", title: `95 % interval ${bounds(interval)}, ${episodes} episodes` }, percent(value));
  shown.style.background = `rgb(var(${colour}) / ${(0.6 * depth).toFixed(2)})`;
  return shown;
}

// Views: what is asked, and what is made of the answers -------------------------------------------------------------------

// A Map, since an object has names of its own, and miners choose theirs.
const by = (items, key) => new Map(items.map((item) => [item[key], item]));

const overview = {
  place: "#/",
  title: () => "Weights",
  // The vector is told from memory while the database is away, that it is stale above all. The others are not, and can be missed.
  ask: async () => {
    const asked = [ask("/v1/status", 503), ask("/v1/weights/latest", 404), ask("/v1/scores/latest", 404, 503)];
    const [status, weights, scores] = await Promise.all(asked);
    return { status, weights, scores };
  },
  draw: ({ status, weights, scores }) => {
    const evaluation = status?.is_evaluating ? [word("running"), " ", cycleLink(status.current_cycle?.uuid, status.current_cycle?.id)] : "idle";
    const next = status?.next_eval_in_seconds == null ? null : ticking(`in ${span(status.next_eval_in_seconds)}`);
    const stand = facts(["evaluation", status == null ? "not known now" : evaluation], ["next cycle", next]);
    if (weights == null) return [el("h1", null, "Weights"), stand, el("p", null, "No weights have been published yet.")];
    const environments = scores?.environments ?? [];
    const found = new Map((scores?.entries ?? []).map((entry) => [entry.hotkey, new Map()]));
    for (const entry of scores?.entries ?? []) found.get(entry.hotkey).set(entry.environment, entry);
    const weighed = by(weights.entries, "uid");
    const uids = new Map((scores?.entries ?? []).map((entry) => [entry.uid, entry.hotkey]));
    for (const entry of weights.entries) uids.set(entry.uid, entry.hotkey);
    const frontier = new Set(scores?.pareto_frontier ?? []);
    const sorted = [...uids].sort(([a], [b]) => (weighed.get(b)?.weight ?? 0) - (weighed.get(a)?.weight ?? 0) || a - b);
    const rows = sorted.map(([uid, hotkey]) => [
      number(uid),
      cell(hotkey == null ? "nobody: this share is burnt" : minerLink(hotkey)),
      number(percent(weighed.get(uid)?.weight ?? 0, 2)),
      cell(frontier.has(uid) ? "on it" : ""),
      number(scores?.subset_scores?.[uid]),
      ...environments.map((environment) => rate(found.get(hotkey)?.get(environment))),
    ]);
    const columns = [["uid", "number"], "miner", ["weight", "number"], "frontier", ["points", "number"], ...environments.map((environment) => [environment, "number"])];
    return [
      el("h1", null, "Weights ", word(weights.status)),
      facts(
        ["reason", weights.reason],
        ["published", moment(weights.created_at)],
        ["cycle", cycleLink(weights.cycle_uuid, weights.cycle_id)],
        ["block", weights.block],
        ["valid until block", weights.valid_until_block],
        ["digest", el("code", null, weights.digest)],
      ),
      stand,
      table(columns, rows, "The vector is empty."),
    ];
  },
};

const miners = {
  place: "#/miners",
  title: () => "Miners",
  ask: () => ask("/v1/miners"),
  draw: ({ discovered_in, miners: all }) => [
    el("h1", null, "Miners"),
    facts(["last discovery", discovered_in == null ? "none yet" : cycleLink(discovered_in)]),
    table(
      [["uid", "number"], "miner", "status", ["mean success", "number"], "evaluated"],
      all.map((miner) => [number(miner.uid), cell(minerLink(miner.hotkey)), cell(word(miner.status)), number(percent(miner.avg_success_rate)), cell(moment(miner.last_evaluated) ?? "-")]),
      "No miner is known yet.",
    ),
  ],
};

const miner = {
  place: "#/miners",
  title: (hotkey) => hotkey,
  ask: (hotkey) => ask(`/v1/miners/${encodeURIComponent(hotkey)}`),
  draw: (shown) => {
    const { commitment, frontier, episodes } = shown;
    const latency = episodes?.latency;
    const distance = by(frontier?.environments ?? [], "environment");
    const outcomes = (counts) => Object.entries(counts).map(([outcome, count]) => `${count} ${outcome}`).join(", ");
    return [
      el("h1", null, shown.hotkey),
      facts(
        ["uid", shown.uid],
        ["commitment", [word(commitment.status), commitment.detail == null ? "" : ` ${commitment.detail}`]],
        ["serves this since block", commitment.first_block],
        ["registered at block", commitment.registered_at_block],
        ["model", commitment.model],
        ["flags", shown.flags.join(", ")],
        ["evaluated", shown.evaluated_in == null ? null : [moment(shown.last_evaluated), " in ", cycleLink(shown.evaluated_in)]],
        ["mean success", shown.avg_success_rate == null ? null : percent(shown.avg_success_rate)],
        ["frontier", frontier == null ? null : [frontier.is_on_it ? "on it" : "not on it", ...frontier.dominated_by.flatMap((one, at) => [at > 0 ? ", " : ", dominated by ", minerLink(one.hotkey)])]],
      ),
      el("h2", null, "By environment"),
      table(
        ["environment", ["success", "number"], ["95 % interval", "number"], ["episodes", "number"], ["mean return", "number"], ["behind by", "number"], "outcomes"],
        shown.scores.map((score) => [
          cell(score.environment), rate(score), number(bounds(score.interval)), number(score.episodes), number(score.mean_return.toFixed(2)),
          number(percent(distance.get(score.environment)?.gap)), el("td", { class: "text" }, outcomes(score.outcomes)),
        ]),
        "It is not among the scored.",
      ),
      el("h2", null, "Last episodes"),
      episodes == null
        ? el("p", null, "None are kept.")
        : facts(
            ["cycle", cycleLink(episodes.cycle_uuid, episodes.cycle_id)],
            ["outcomes", episodes.outcomes.map(({ outcome, reason, count }) => `${count} ${outcome ?? "still to be played"}${reason == null ? "" : ` (${reason})`}`).join(", ")],
            ["answers within", latency == null ? null : `${latency.p50_ms.toFixed(1)} ms (median), ${latency.p95_ms.toFixed(1)} ms (95 %), ${latency.max_ms.toFixed(1)} ms (slowest)`],
          ),
      el("h2", null, "How it was found"),
      table(
        ["environment", "status", "seen", "model", "why"],
        shown.reachability.map((one) => [cell(one.environment), cell(word(one.status)), cell(moment(one.seen_at)), cell(one.model ?? "-"), el("td", { class: "text" }, one.detail ?? "")]),
        "It has not been called.",
      ),
    ];
  },
};

const cycles = {
  place: "#/cycles",
  title: () => "Cycles",
  ask: (before) => ask(`/v1/cycles?limit=20${before ? `&before=${encodeURIComponent(before)}` : ""}`),
  draw: ({ cycles: page, next_before: next }) => [
    el("h1", null, "Cycles"),
    table(
      ["cycle", "pipeline", "status", "created", ["took", "number"], "episodes", ["block", "number"]],
      page.map((cycle) => [
        cell(cycleLink(cycle.id)), cell(cycle.pipeline), cell(word(cycle.status)), cell(moment(cycle.created_at)),
        number(cycle.finished_at == null ? null : span((new Date(cycle.finished_at) - new Date(cycle.created_at)) / 1000)),
        cell(progress(cycle.episodes_scored, cycle.episodes_planned, "episodes")), number(cycle.block),
      ]),
      "There has been no cycle yet.",
    ),
    next == null ? null : el("p", null, link(`cycles?before=${next}`, "Older")),
  ],
};

const cycle = {
  place: "#/cycles",
  title: (id) => id,
  ask: (id) => ask(`/v1/cycles/${encodeURIComponent(id)}`),
  draw: (shown) => [
    el("h1", null, shown.id, " ", word(shown.status)),
    facts(
      ["pipeline", shown.pipeline],
      ["reason", shown.reason],
      ["created", moment(shown.created_at)],
      [shown.finished_at != null ? "took" : shown.status === "running" ? "running for" : "age", ticking(span(shown.duration_seconds))],
      ["episodes", progress(shown.episodes_scored, shown.episodes_planned, "episodes")],
      ["block", shown.block],
      ["definition", el("code", null, shown.definition_hash)],
      ["salt", shown.salt == null ? null : el("code", null, shown.salt)],
      ["SHA-256 of the salt", el("code", null, shown.salt_sha256)],
      ["weights", shown.weights_digest == null ? null : [el("code", null, shown.weights_digest), " ", download(`/v1/cycles/${shown.id}/scores.csv`, `scores-${shown.id}.csv`, "scores as CSV")]],
    ),
    el("h2", null, "Stages"),
    table(
      ["stage", "tasks", "by status", ["attempts", "number"], ["took", "number"]],
      shown.stages.map((stage) => [
        cell(stage.stage), cell(progress(ended(stage.statuses), stage.tasks, "tasks")),
        cell(Object.entries(stage.statuses).filter(([, count]) => count > 0).map(([status, count]) => `${count} ${status}`).join(", ")),
        number(stage.attempts), number(ticking(span(stage.duration_seconds))),
      ]),
      "It has no stages.",
    ),
    failures(shown.stages),
  ],
};

const ended = (statuses) => ["succeeded", "failed", "skipped", "cancelled"].reduce((sum, status) => sum + (statuses[status] ?? 0), 0);

function progress(done, all, what) {
  if (all === 0) return "-";
  const title = `${done} of ${all} ${what}`;
  return el("span", { title }, el("meter", { min: 0, max: all, value: done, "aria-label": title }), ` ${done}/${all}`);
}

/** The tasks that have failed, of stages that are narrow enough to be listed. */
function failures(stages) {
  const failed = stages.flatMap((stage) => (stage.task_list ?? []).filter((task) => task.status === "failed").map((task) => [stage.stage, task]));
  if (failed.length === 0) return null;
  const rows = failed.map(([stage, task]) => [cell(task.cell ? `${stage}[${task.cell}]` : stage), cell(task.failure_class ?? "-"), number(task.attempts), el("td", { class: "text" }, task.why ?? "its words are for operators")]);
  return [el("h2", null, "What failed"), table(["task", "class", ["attempts", "number"], "why"], rows, "")];
}

// Asking and showing ------------------------------------------------------------------------------------------------------

/** An answer that is not the one asked for. */
class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** No answer, or nothing that the API would say. */
class Silence extends Error {}

/** What `read` makes of an answer; null where it has one of the statuses `missing`, which are no mistake then. */
async function get(path, read, missing) {
  const key = sessionStorage.getItem("key");
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  let status, problem;
  try {
    const answer = await fetch(path, { cache: "no-cache", headers, signal: AbortSignal.timeout(PATIENCE) });
    if (answer.ok) return await read(answer);
    if (missing.includes(answer.status)) return null;
    status = answer.status;
    problem = await answer.json().catch(() => null);
  } catch (error) {
    throw new Silence(error.message);
  }
  throw new Refusal(status, problem?.detail ?? `the backend answers with status ${status}`);
}

const ask = (path, ...missing) => get(path, (answer) => answer.json(), missing);

/** A link to a file. No link can show a key: with one the page gets the file itself, and hands it on. */
function download(path, name, text) {
  const shown = el("a", { href: path }, text);
  shown.addEventListener("click", async (event) => {
    if (!sessionStorage.getItem("key")) return;
    event.preventDefault();
    try {
      const file = URL.createObjectURL(await get(path, (answer) => answer.blob(), []));
      el("a", { href: file, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(file), PATIENCE);
    } catch (error) {
      fail(error);
    }
  });
  return shown;
}

/** The view that an address stands for, and what it is of. */
function route() {
  const [path, question] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  let of;
  try {
    of = decodeURIComponent(rest.join("/"));
  } catch {
    // Such an address is nobody's.
    return [overview];
  }
  if (name === "miners") return of ? [miner, of] : [miners];
  if (name === "cycles") return of ? [cycle, of] : [cycles, new URLSearchParams(question).get("before")];
  return [overview];
}

const waiting = el("p", null, "One moment ...");
let turn = 0;
let timer;
/** What `main` has been drawn from, without what ticks; null when it has not. */
let drawn = null;
/** What the backend has said of the key that was shown last, if it was none. */
let refused = "";

/** These are never the same twice in what runs; with what has ended something else changes, too. */
const TICKING = ["next_eval_in_seconds", "duration_seconds"];
const still = (name, value) => (TICKING.includes(name) && value != null ? 0 : value);

/** Say what is wrong, once: whoever listens to the page hears every change. */
function tell(text) {
  trouble.hidden = text === "";
  if (trouble.textContent !== text) trouble.textContent = text;
}

/** Tell of a failure, and leave what is shown as it is. */
function fail(error) {
  waiting.remove();
  const old = main.hasChildNodes() ? " What is shown may be old." : "";
  if (error instanceof Silence) {
    tell(`The backend does not answer (${error.message}).${old}`);
  } else if (!(error instanceof Refusal)) {
    console.error(error);
    tell(`This page has made a mistake; loading it again may help. (${error.message})`);
  } else if (error.status === 401) {
    // The form says that a key is needed. What was wrong with the last one stays until another is tried.
    if (sessionStorage.getItem("key")) refused = error.message;
    sessionStorage.removeItem("key");
    keyForm.hidden = false;
    tell(refused);
  } else {
    // Whoever may not ask at all is not told this; an overload says nothing of keys.
    if (error.status < 500 && error.status !== 429) keyForm.hidden = true;
    tell(error.message + (error.status >= 500 ? `.${old}` : ""));
  }
}

/** Put these parts into `main`. What has not changed is left alone, with whatever is selected in it. */
function put(parts, from) {
  const fresh = el("main", null, parts);
  if (from === drawn) {
    const ticks = fresh.querySelectorAll("[data-ticks]");
    main.querySelectorAll("[data-ticks]").forEach((tick, at) => {
      const text = ticks[at]?.textContent;
      if (tick.textContent !== text) tick.textContent = text;
    });
    return;
  }
  const scrolled = [...main.querySelectorAll(".wide")].map((wide) => wide.scrollLeft);
  const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  main.replaceChildren(...fresh.childNodes);
  main.querySelectorAll(".wide").forEach((wide, at) => (wide.scrollLeft = scrolled[at] ?? 0));
  if (focused != null) [...main.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus({ preventScroll: true });
  drawn = from;
}

/** Show what the address says, and again for as long as it says so. */
async function show() {
  const mine = ++turn;
  clearTimeout(timer);
  try {
    const [view, of] = route();
    const found = await view.ask(of);
    if (mine !== turn) return;
    put(view.draw(found), JSON.stringify(found, still));
    refused = "";
    keyForm.hidden = true;
    tell("");
  } catch (error) {
    if (mine !== turn) return;
    fail(error);
  }
  timer = setTimeout(() => (document.hidden ? null : show()), PERIOD);
}

function turnTo() {
  const [view, of] = route();
  document.title = `${view.title(of)} - robo`;
  for (const one of document.querySelectorAll("nav a")) {
    if (one.getAttribute("href") === view.place) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  drawn = null;
  main.replaceChildren(waiting);
  show();
}

addEventListener("hashchange", turnTo);
addEventListener("visibilitychange", () => (document.hidden ? null : show()));
const field = keyForm.elements.key;
field.addEventListener("input", () => field.setCustomValidity(""));
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const key = field.value.trim();
  // No header can carry anything else.
  field.setCustomValidity(/^[\x21-\x7e]+$/.test(key) ? "" : "This is no API key: it has spaces, or signs beyond plain ASCII.");
  if (!field.reportValidity()) return;
  sessionStorage.setItem("key", key);
  refused = "";
  tell("");
  turnTo();
});
turnTo();
