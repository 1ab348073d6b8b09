import { countDown } from "./countdown.js";

countDown();
