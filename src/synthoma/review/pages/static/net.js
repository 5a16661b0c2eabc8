// Talking to the server: what is read, and a queue of what is saved that outlives a server's restart.
"use strict";

export async function getJson(path) {
  const response = await fetch(path);
  const data = await response.json();
  if (!response.ok) throw new Error(data.error);
  return data;
}

export async function getBytes(path, progress) {
  const response = await fetch(path);
  if (!response.ok) throw new Error((await response.json()).error);
  const total = Number(response.headers.get("content-length"));
  const bytes = new Uint8Array(total);
  const reader = response.body.getReader();
  let done = 0;
  for (;;) {
    const part = await reader.read();
    if (part.done) break;
    bytes.set(part.value, done);
    done += part.value.length;
    if (progress) progress(done / total);
  }
  if (done !== total) throw new Error("The scan did not arrive whole. Reload the page.");
  return bytes.buffer;
}

async function through(stream, bytes) {
  const piped = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(piped).arrayBuffer());
}
export const deflate = (bytes) => through(new CompressionStream("deflate"), bytes);
export const inflate = (bytes) => through(new DecompressionStream("deflate"), bytes);

export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function post(path, body, type = "application/json") {
  const response = await fetch(path, { method: "POST", body, headers: { "content-type": type } });
  if (response.status >= 500) throw new TypeError("the server failed");
  if (response.headers.get("content-type").startsWith("application/json")) {
    const data = await response.json();
    if (!response.ok) throw new Error(data.error);
    return data;
  }
  if (!response.ok) throw new Error(await response.text());
  return new Uint8Array(await response.arrayBuffer());
}

// Saves one after the other. A job is tried again until the server takes or refuses it; its key makes it count once.
export class Queue {
  constructor(tell) {
    this.jobs = [];
    this.tell = tell; // (waiting, sentence): sentence is empty if all is well
    this.running = false;
    window.addEventListener("beforeunload", (event) => { if (this.jobs.length) event.preventDefault(); });
  }

  add(job) {
    return new Promise((resolve, reject) => {
      this.jobs.push({ job, resolve, reject });
      this.tell(this.jobs.length, "");
      this.run();
    });
  }

  async run() {
    if (this.running) return;
    this.running = true;
    while (this.jobs.length) {
      const { job, resolve, reject } = this.jobs[0];
      try {
        const result = await job();
        this.jobs.shift();
        resolve(result);
        this.tell(this.jobs.length, "");
      } catch (error) {
        if (error instanceof TypeError) { // no answer: the server is away
          this.tell(this.jobs.length, "The server does not answer. Your last step is kept here and sent again.");
          await new Promise((wake) => setTimeout(wake, 1000));
        } else {
          this.jobs.shift();
          reject(error);
          this.tell(this.jobs.length, error.message);
        }
      }
    }
    this.running = false;
  }
}
