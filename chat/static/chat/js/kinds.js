/** Which card shows what. A new kind is one template, one module, and its class in this list. */
import { AgentModeCard } from "./cards/agent_mode.js";
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
const byKind = new Map(CARDS.map((Card) => [Card.kind, Card]));
const byFrame = new Map(
  CARDS.flatMap((Card) => Object.keys(Card.frames).map((type) => [type, Card])),
);

/** The card class that a `data-card` attribute names. */
export function cardNamed(name) {
  return byKind.get(name);
}

/** The card class for an entity of a snapshot. */
export function cardFor({ kind, props }) {
  return byKind.get(kind === "message" ? props.role : kind) ?? OtherCard;
}

/** The card class for a type of frame; undefined for one that shows nothing. */
export function cardForFrame(type) {
  return byFrame.get(type);
}
