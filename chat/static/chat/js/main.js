/** Finds the page's parts and joins them. */
import { Announcer } from "./announcer.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { Conversations } from "./conversations.js";
import { Profiles } from "./profiles.js";
import { Queue } from "./queue.js";
import { StickyScroll } from "./scroll.js";
import { slot } from "./slot.js";
import { Stream } from "./stream.js";
import { Timeline } from "./timeline.js";

const ENDINGS = {
  completed: "The answer is complete.",
  cancelled: "The answer was stopped.",
  max_iterations: "The limit of steps was reached.",
};

const find = (name) => document.querySelector(`[data-${name}]`);
const page = find("conversation");
const select = find("profiles");
const profiles = select && new Profiles(select);

if (page) followConversation();
else {
  new Composer(find("composer"), {});
  new Conversations(find("conversations"), {});
}

function followConversation() {
  const { convId, cursor, running } = page.dataset;
  const announcer = new Announcer(find("announcer"));
  const timeline = new Timeline(find("timeline"));
  const queue = new Queue(find("queue"), { convId, onEmptied: () => composer.focus() });
  const composer = new Composer(find("composer"), {
    convId,
    onSent({ status }) {
      scroll.follow();
      if (status === "queued") announcer.say("Your message waits for its turn.");
    },
  });
  const scroll = new StickyScroll(find("jump"), { onJump: () => composer.focus() });
  const conversations = new Conversations(find("conversations"), {
    onTitle(title) {
      slot(page, "title").textContent = title;
      document.title = `${title} · Webchat`;
    },
  });
  composer.running = running === "true";

  const happenings = {
    "inference.started"() {
      composer.running = true;
      announcer.say("The answer begins.");
      conversations.refresh();
    },
    "llm.delta"({ data }) {
      announcer.read(data.delta);
    },
    "inference.finished"({ data }) {
      composer.running = false;
      announcer.end(ENDINGS[data.status] ?? data.error ?? "The answer failed.");
      conversations.refresh();
    },
    "debugger.pause"({ data }) {
      announcer.say(`Your decision is needed. ${data.summary}`);
    },
    "queue.updated"({ data }) {
      queue.show(data.items);
    },
    "session.updated"({ data }) {
      profiles?.show(data.profile);
    },
  };

  const stream = new Stream({
    convId,
    cursor,
    onHello: (hello) => (composer.running = hello.running),
    onSnapshot(snapshot) {
      timeline.replace(snapshot.entities);
      composer.running = snapshot.running;
      queue.show(snapshot.queue);
    },
    onFrame(event) {
      timeline.apply(event);
      happenings[event.type]?.(event);
    },
    onStatus: (status) => connection.show(status),
  });
  const connection = new Connection(find("connection"), {
    announcer,
    retry: () => stream.open(),
  });
  stream.open();
}
