/** Finds the page's parts and joins them. */
import { Announcer } from "./announcer.js";
import { setSignedOut } from "./api.js";
import { Answers } from "./answers.js";
import { setServerTime } from "./clock.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { Conversations } from "./conversations.js";
import { listenForCopies } from "./copy.js";
import { Cursor } from "./cursor.js";
import { Profiles } from "./profiles.js";
import { Queue } from "./queue.js";
import { StickyScroll } from "./scroll.js";
import { StepMode } from "./step_mode.js";
import { Stream } from "./stream.js";
import { Timeline } from "./timeline.js";

const ENDINGS = {
  completed: "The answer is complete.",
  cancelled: "The answer was stopped.",
  max_iterations: "The limit of steps was reached.",
};

const parts = partsOf(document.body);
const page = parts.conversation;
const profiles = parts.profiles && new Profiles(parts.profiles);

// In a task of its own: the modules have just taken one.
if (page) setTimeout(followConversation);
else {
  new Composer(parts.composer, {});
  new Conversations(parts.conversations, {});
}

/** The elements by the names of their data attributes. A timeline's cards, which may be many, have none. */
function partsOf(root) {
  const found = {};
  const { FILTER_ACCEPT, FILTER_REJECT, SHOW_ELEMENT } = NodeFilter;
  const walker = document.createTreeWalker(root, SHOW_ELEMENT, ({ parentElement }) =>
    parentElement.hasAttribute("data-timeline") ? FILTER_REJECT : FILTER_ACCEPT,
  );
  while (walker.nextNode()) {
    const element = walker.currentNode;
    for (const name of Object.keys(element.dataset)) found[name] ??= element;
  }
  return found;
}

function followConversation() {
  const { convId, cursor, running } = page.dataset;
  const decides = page.dataset.may.split(" ").includes("decide");
  const announcer = new Announcer(parts.announcer);
  const timeline = new Timeline(parts.timeline, Cursor.parse(cursor));
  const queue = new Queue(parts.queue, { convId, onEmptied: () => composer.focus() });
  const composer = new Composer(parts.composer, {
    convId,
    onSent({ status }) {
      profiles?.sent();
      scroll.follow();
      if (status === "queued") announcer.say("Your message waits for its turn.");
    },
  });
  const answers = new Answers(parts.timeline, {
    convId,
    timeline,
    again: (prompt, inferenceId) => composer.again(prompt, inferenceId),
  });
  listenForCopies(parts.timeline, {
    answer: (inferenceId) => answers.markdown(inferenceId),
    told: (outcome) => announcer.say(outcome),
  });
  const stepMode = new StepMode(parts.steps, { convId, onError: (error) => composer.say(error) });
  const scroll = new StickyScroll(parts.jump, { onJump: () => composer.focus() });
  const conversations = new Conversations(parts.conversations, {
    onTitle(title) {
      parts.title.textContent = title;
      document.title = `${title} · Webchat`;
    },
  });
  composer.running = running === "true";

  const happenings = {
    "chat.message"({ data }) {
      composer.taken([data.idempotencyKey]);
    },
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
      announcer.say(`${decides ? "Your" : "A"} decision is needed. ${data.summary}`);
      conversations.refresh();
    },
    "debugger.resumed"({ id }) {
      const pause = timeline.card(id);
      if (!pause.element.contains(document.activeElement)) announcer.say(pause.outcome);
      conversations.refresh();
    },
    "queue.updated"({ data }) {
      queue.show(data.items);
      composer.taken(data.items.map((item) => item.idempotencyKey));
    },
    "session.updated"({ data }) {
      showSession(data);
    },
  };

  const stream = new Stream({
    convId,
    cursor,
    onHello(hello) {
      setServerTime(hello.serverTime);
      composer.running = hello.running;
      profiles?.show(hello.runtimeKey);
    },
    onSnapshot(snapshot) {
      timeline.replace(snapshot);
      composer.running = snapshot.running;
      queue.show(snapshot.queue);
      composer.taken(snapshot.queue.map((item) => item.idempotencyKey));
      if (snapshot.profile !== undefined) showSession(snapshot);
    },
    onFrame(event) {
      timeline.apply(event);
      happenings[event.type]?.(event);
    },
    onStatus(status) {
      setSignedOut(Boolean(status.signedOut));
      connection.show(status);
      if (status.state === "live") composer.reached();
    },
  });
  const connection = new Connection(parts.connection, {
    announcer,
    retry: () => stream.open(),
  });
  stream.open();

  function showSession({ profile, stepMode: enabled }) {
    profiles?.show(profile);
    stepMode.show(enabled);
  }
}
