// Requests to the server behind the page. What changes something is sent until it arrives.

const PAUSE = 1000; // milliseconds before a request that got no answer is sent again

export class Refused extends Error {}

async function once(path, options) {
  const response = await fetch(path, options);
  const found = await response.json();
  if (!response.ok) throw new Refused(found.detail ?? `status ${response.status}`);
  return found;
}

export function get(path) {
  return once(path, {});
}

// The same answer may arrive twice; the server takes it once.
export async function post(action, body, offline) {
  const options = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  for (;;) {
    try {
      const found = await once(`/api/${action}`, options);
      offline(null);
      return found;
    } catch (error) {
      if (error instanceof Refused) {
        offline(null);
        throw error;
      }
      offline("The server does not respond. Your answers are kept on this page and will be sent again.");
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  }
}
