// Keeps every file of the site for use without a network, and gives the page the headers that allow threads.

const SITE = `fssd ${registration.scope} `; // several sites may lie on one host
const CACHE = `${SITE}VERSION`; // of the files of this export
const FIRST = ["./", "model.json", "assets/page.css", "assets/web.css", "assets/theme.js", "assets/opened.js"];

addEventListener("install", (event) => event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FIRST))));

addEventListener("activate", (event) => {
  const own = async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith(SITE) && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await clients.claim();
  };
  event.waitUntil(own());
});

/** The same answer, which lets the page share memory between threads. */
function isolated(response) {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return isolated(kept);
  const fresh = await fetch(request);
  if (fresh.ok) await cache.put(request, fresh.clone());
  return isolated(fresh);
}

addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(registration.scope)) event.respondWith(answer(event.request));
});
