// An upstream service in Node: says each text to one dialog and prints the replies. It knows the wire contract
// (docs/wire-contract.md) and an AMQP client, nothing else of Switchboard.
//
//     npm install
//     node ask.js ada "Hello" "And again"
"use strict";

const amqp = require("amqplib");
const { randomUUID } = require("node:crypto");
const { setTimeout: pause } = require("node:timers/promises");

const SLOTS = 1024;
const DIRECT_REPLY = "amq.rabbitmq.reply-to"; // replies come on the channel that published, without a queue of our own

// CRC-32 as in zlib. Node has it as zlib.crc32 from 20.15 on.
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

const slot = (ctxId) => crc32(Buffer.from(ctxId, "utf8")) % SLOTS;

const PAUSE = 200; // milliseconds between tries

// Queues are made by workers and by `switchboard topology apply`. Without them, trying again is in vain.
class NoTopology extends Error {}

class Bots {
  #url;
  #exchange;
  #link; // promise of the channel, while there is a connection
  #connection;
  #waiting = new Map(); // message id -> settles the request

  constructor(url, namespace) {
    this.#url = url;
    this.#exchange = `${namespace}.requests`;
  }

  // The reply to `text` in dialog `ctxId`, whose status may be "error". Whatever is lost on the way, the request is
  // published again under the same id, so it is one turn. Ask the next thing in a dialog once this has returned.
  async ask(ctxId, text, seconds = 60) {
    const id = randomUUID();
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      try {
        return await this.#askOnce(id, ctxId, text, deadline - Date.now());
      } catch (error) {
        if (error instanceof NoTopology || Date.now() + PAUSE >= deadline) throw error;
        console.error(`${error.message}; publishing request ${id} again`);
        await pause(PAUSE);
      }
    }
  }

  async close() {
    await this.#connection?.close().catch(() => {}); // it may be closing already
  }

  async #askOnce(id, ctxId, text, milliseconds) {
    this.#link ??= this.#open().catch((error) => {
      this.#link = undefined;
      throw error;
    });
    const channel = await this.#link;
    const body = { version: 1, ctx_id: ctxId, message: { text, origin: { interface: "node" } } };
    const options = {
      messageId: id,
      contentType: "application/json",
      replyTo: DIRECT_REPLY,
      persistent: true,
      mandatory: true, // where no queue is bound, it comes back as a "return"
    };
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.set(id, { resolve, reject });
        timer = setTimeout(() => reject(new Error("no reply in time")), milliseconds);
        const confirmed = (error) => error && reject(error); // the broker has not taken it: its queue is full, say
        channel.publish(this.#exchange, String(slot(ctxId)), Buffer.from(JSON.stringify(body)), options, confirmed);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  async #open() {
    const connection = await amqp.connect(this.#url);
    this.#connection = connection;
    connection.on("error", () => {}); // "close" follows
    connection.on("close", () => this.#lost(new Error("the connection was lost")));
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => connection.close()); // so that there is one thing to open again
    await channel.checkExchange(this.#exchange).catch((error) => {
      throw error.code === 404 ? new NoTopology(`there is no exchange ${this.#exchange}`) : error;
    });
    channel.on("return", ({ fields, properties }) =>
      this.#waiting.get(properties.messageId)?.reject(new NoTopology(`no queue for slot ${fields.routingKey}`)),
    );
    await channel.consume(DIRECT_REPLY, (message) => this.#onReply(message), { noAck: true });
    return channel;
  }

  #onReply(message) {
    // Not asked with a correlation id of our own, so it is the request's id. A repeated reply finds nobody waiting.
    if (message) this.#waiting.get(message.properties.correlationId)?.resolve(JSON.parse(message.content));
  }

  #lost(error) {
    this.#link = undefined;
    for (const { reject } of this.#waiting.values()) reject(error);
  }
}

async function main([ctxId, ...texts]) {
  if (!ctxId || texts.length === 0) throw new Error("usage: node ask.js CTX_ID TEXT...");
  const { SWITCHBOARD_AMQP_URL: url = "amqp://guest:guest@127.0.0.1:5672/", SWITCHBOARD_NAMESPACE: namespace } =
    process.env;
  const bots = new Bots(url, namespace ?? "switchboard");
  try {
    for (const text of texts) {
      const { status, message, error } = await bots.ask(ctxId, text);
      console.log(status === "ok" ? (message?.text ?? "") : `${error.code}: ${error.detail}`);
    }
  } finally {
    await bots.close();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
