// Calls of the server's routes. The key is in this variable and nowhere else.

let apiKey = "";

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// The answer of a route, parsed; throws Refused with the server's own words.
async function ask(route, body, signal) {
  const headers = apiKey ? { authorization: `Bearer ${apiKey}` } : {};
  const how = { headers, signal };
  if (body !== undefined) {
    Object.assign(how, { method: "POST", body: JSON.stringify(body) });
    headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(route, how);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it running?");
  }
  const text = await response.text();
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    if (response.ok) throw new Refused(response.status, "The server's answer is no JSON.");
  }
  if (response.ok) return found;
  const said = found && (found.error || found.message);
  const later = response.headers.get("retry-after");
  throw new Refused(response.status, `${said || `The server answers with status ${response.status}`}` +
    (later && response.status !== 401 ? ` (again in ${later} s)` : ""));
}
