/** A place in a conversation's history: `<epoch>.<seq>` or `<epoch>.<seq>.<stream_id>`. A value. */
export class Cursor {
  constructor(epoch, seq, streamId) {
    this.epoch = epoch;
    this.seq = seq;
    this.streamId = streamId;
  }

  static parse(text) {
    const [epoch, seq, streamId] = text.split(".");
    return new Cursor(epoch, Number(seq), streamId);
  }

  /** The place of the next frame in the same life of the log. */
  at(seq, streamId) {
    return new Cursor(this.epoch, seq, streamId);
  }

  toString() {
    return [this.epoch, this.seq, this.streamId].filter((part) => part !== undefined).join(".");
  }
}
