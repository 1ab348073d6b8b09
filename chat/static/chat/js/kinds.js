/**
 * Which card shows what. A new kind of ours is one template, one module, and its class in this list. A
 * kind of an app's is named as its frames are, and has a card of its own where there is a template.
 */
import { AgentModeCard } from "./cards/agent_mode.js";
import { AppCard } from "./cards/app.js";
import { AssistantCard } from "./cards/assistant.js";
import { DebuggerPauseCard } from "./cards/debugger_pause.js";
import { InferenceCard } from "./cards/inference.js";
import { LogCard } from "./cards/log.js";
import { OtherCard } from "./cards/other.js";
import { ThinkingCard } from "./cards/thinking.js";
import { ToolCallCard } from "./cards/tool_call.js";
import { ToolResultCard } from "./cards/tool_result.js";
import { UserCard } from "./cards/user.js";

const CARDS = [
  AgentModeCard,
  AssistantCard,
  DebuggerPauseCard,
  InferenceCard,
  LogCard,
  OtherCard,
  ThinkingCard,
  ToolCallCard,
  ToolResultCard,
  UserCard,
];
const APP_PREFIX = "app.";
const byKind = new Map(CARDS.map((Card) => [Card.kind, Card]));
const byFrame = new Map(
  CARDS.flatMap((Card) => Object.keys(Card.frames).map((type) => [type, Card])),
);

/** The card class that a `data-card` attribute names. */
export function cardNamed(name) {
  return byKind.get(name) ?? appCard(name);
}

/** The card class for an entity of a snapshot. */
export function cardFor({ kind, props }) {
  return byKind.get(kind === "message" ? props.role : kind) ?? appCard(APP_PREFIX + kind);
}

/** The card class for a type of frame; undefined for one that shows nothing. */
export function cardForFrame(type) {
  return byFrame.get(type) ?? (type.startsWith(APP_PREFIX) ? appCard(type) : undefined);
}

/** The card class for a type of an app's frames, made when it is first asked for. */
function appCard(type) {
  if (!byFrame.has(type)) {
    const kind = type.slice(APP_PREFIX.length);
    const hasTemplate = document.getElementById(`card-${type}`) !== null;
    const Card = class extends (hasTemplate ? AppCard : OtherCard) {
      static kind = hasTemplate ? type : OtherCard.kind;
      static frames = { [type]: (card, event) => card.take(event.data, kind) };
    };
    byFrame.set(type, Card);
  }
  return byFrame.get(type);
}
