// Requests to this server, and whether it answers. Nothing else is ever asked.

const TIMEOUT_MS = 60_000;

/** An answer that says what is wrong, in one line, and what to do. */
export class ApiError extends Error {
  constructor(status, what, hint) {
    super(what);
    this.status = status;
    this.hint = hint;
  }
}

const listeners = new Set();
let reachable = null;

/** Call `listener(reachable)` now and at each change. */
export function onReachable(listener) {
  listeners.add(listener);
  if (reachable !== null) listener(reachable);
}

function setReachable(now) {
  if (now === reachable) return;
  reachable = now;
  for (const listener of listeners) listener(now);
}

/** Send a request; return its response if the server accepted it. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted && options.signal.reason?.name !== "TimeoutError") throw error;
    setReachable(false);
    throw new ApiError(0, "the server does not answer", "");
  }
  // A proxy answers these for a server that is gone.
  setReachable(![502, 504].includes(response.status));
  if (response.status === 401) location.assign("/login");
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new ApiError(
      response.status,
      said.error ?? `the server answered ${response.status}`,
      said.hint ?? "",
    );
  }
  return response;
}

/** GET a path with parameters; return its JSON. A parameter may be a list. */
export async function getJson(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of [value].flat()) if (each !== null && each !== undefined) query.append(name, each);
  }
  const text = query.toString();
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  return (await request(text ? `${path}?${text}` : path, { signal })).json();
}

/**
 * Run `work` again and again while the page is visible, never twice at once. After an
 * error the pause grows, so a server that is down or busy is left in peace. `onError` is
 * told what the server refuses; that it does not answer is shown elsewhere.
 */
export class Repeater {
  constructor(everyMs, work, onError = () => {}) {
    this.everyMs = everyMs;
    this.work = work;
    this.onError = onError;
    this.failures = 0;
    this.timer = null;
    this.running = false;
    this.again = false;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.now();
    });
  }

  /** Run at once, or directly after the present run. */
  now() {
    clearTimeout(this.timer);
    if (this.running) this.again = true;
    else this.#run();
  }

  async #run() {
    this.running = true;
    this.again = false;
    try {
      await this.work();
      this.failures = 0;
    } catch (error) {
      this.failures += 1;
      if (!(error instanceof ApiError)) console.error(error);
      else if (error.status) this.onError(error);
    }
    this.running = false;
    const pauseMs = this.failures ? Math.min(10_000, 500 * 2 ** this.failures) : this.everyMs;
    if (!document.hidden) this.timer = setTimeout(() => this.#run(), this.again ? 0 : pauseMs);
  }
}
