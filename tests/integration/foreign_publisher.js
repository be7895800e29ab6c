// A publisher that knows nothing but the wire contract, version 1. It reads from standard input
// {url, namespace, name, replyTo: "direct" | "queue", dialogs: {ctx_id: [text, ...]}}, publishes every text and prints
// one line of JSON for each reply: {body, properties, routingKey, queue}.
"use strict";

const amqp = require("amqplib");
const fs = require("node:fs");
const { randomUUID } = require("node:crypto");

const SLOTS = 1024;
const DIRECT_REPLY = "amq.rabbitmq.reply-to";

// CRC-32 (IEEE), bit by bit: written here from its definition, so that two implementations must agree.
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    }
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function slot(ctxId) {
  return crc32(Buffer.from(ctxId, "utf8")) % SLOTS;
}

function publish(channel, namespace, replyTo, ctxId, text) {
  const body = JSON.stringify({ version: 1, ctx_id: ctxId, message: { text, origin: { interface: "node" } } });
  const options = {
    messageId: randomUUID(),
    correlationId: JSON.stringify([slot(ctxId), text]),
    contentType: "application/json",
    persistent: true,
    mandatory: true,
    replyTo,
  };
  return new Promise((confirmed, refused) => {
    const settle = (error) => (error ? refused(error) : confirmed());
    channel.publish(`${namespace}.requests`, String(slot(ctxId)), Buffer.from(body), options, settle);
  });
}

async function main() {
  const { url, namespace, name, replyTo, dialogs } = JSON.parse(fs.readFileSync(0, "utf8"));
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  channel.on("return", (message) => {
    throw new Error(`returned: routing key ${message.fields.routingKey}`);
  });

  let queue = DIRECT_REPLY;
  if (replyTo === "queue") {
    queue = `${namespace}.reply.${name}`;
    await channel.assertQueue(queue, { exclusive: true });
  }
  let missing = Object.values(dialogs).flat().length;
  let done;
  const allArrived = new Promise((resolve) => (done = resolve));
  const onReply = (message) => {
    const { properties, fields, content } = message;
    const line = { body: content.toString("utf8"), properties, routingKey: fields.routingKey, queue };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    if (--missing === 0) done();
  };
  await channel.consume(queue, onReply, { noAck: true });

  const confirms = Object.entries(dialogs).flatMap(([ctxId, texts]) =>
    texts.map((text) => publish(channel, namespace, queue, ctxId, text)),
  );
  await Promise.all(confirms);
  await allArrived;
  await connection.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
