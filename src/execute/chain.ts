/** A queue whose links are in its members: unlike an array it allocates nothing, however often it runs empty. */

/** A member of at most one chain at a time. */
export interface Link<T> {
  after: T | undefined;
}

/** First in, first out. */
export class Chain<T extends Link<T>> {
  first: T | undefined = undefined;
  length = 0;
  #last: T | undefined = undefined;

  /** Appends a member that is in no chain. */
  push(member: T): void {
    member.after = undefined;
    if (this.#last) this.#last.after = member;
    else this.first = member;
    this.#last = member;
    this.length += 1;
  }

  /** Takes the first member out; undefined when there is none. */
  shift(): T | undefined {
    const member = this.first;
    if (!member) return undefined;
    this.first = member.after;
    if (!this.first) this.#last = undefined;
    member.after = undefined;
    this.length -= 1;
    return member;
  }
}
