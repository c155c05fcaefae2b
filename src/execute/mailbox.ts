/**
 * A transport over memory that all devices can reach: channels are rings of slots, groups have a region and
 * staging pieces per member. Where the memory lies and how a device sleeps is given by the implementation:
 * ordinary memory and promises in one thread, shared memory and `Atomics.wait` between threads.
 */
import { invariant } from "../base/errors.ts";
import { type ChannelMemory, ReceivingEnd, SendingEnd } from "./channel-end.ts";
import { type AddFloats, GroupMember } from "./group-member.ts";
import { groupsOf, type MailboxLayout, writeAbort } from "./mailbox-layout.ts";
import { type Bell, fault, Traffic } from "./traffic.ts";
import type { Group, Inlet, Outlet, Transfer, Transport } from "./transport.ts";

/** What an implementation provides to one device. */
export interface MailboxSite {
  readonly rank: number;
  readonly layout: MailboxLayout;
  readonly control: Int32Array;
  readonly bell: Bell;
  /** True when `open` gives memory that kernels accept. */
  readonly direct: boolean;
  /** This device's view of a block; asked only for channels and groups that it takes part in. */
  open(block: number): Uint8Array;
  /** A fast addition of floats inside a group's block, by byte positions from its start. */
  add?(block: number): AddFloats | undefined;
}

/** One device's transport over a mailbox. */
export class Mailbox implements Transport {
  readonly rank: number;
  readonly size: number;
  readonly #traffic: Traffic;
  /** By peer, then tag. */
  readonly #sending: readonly Map<number, SendingEnd>[];
  readonly #receiving: readonly Map<number, ReceivingEnd>[];
  readonly #groups: ReadonlyMap<number, GroupMember>;

  constructor(site: MailboxSite) {
    const { plan } = site.layout;
    this.rank = site.rank;
    this.size = plan.size;
    invariant(site.rank >= 0 && site.rank < plan.size, `there is no device ${site.rank} among ${plan.size}`);
    this.#traffic = new Traffic(site.rank, site.layout, site.control, site.bell);
    this.#sending = Array.from({ length: plan.size }, () => new Map());
    this.#receiving = Array.from({ length: plan.size }, () => new Map());
    plan.channels.forEach((channel, index) => {
      if (channel.from !== site.rank && channel.to !== site.rank) return;
      const memory: ChannelMemory = { index, plan: channel, bytes: site.open(index), direct: site.direct };
      if (channel.from === site.rank) {
        this.#sending[channel.to]?.set(channel.tag, new SendingEnd(this.#traffic, memory));
      }
      if (channel.to === site.rank) {
        this.#receiving[channel.from]?.set(channel.tag, new ReceivingEnd(this.#traffic, memory));
      }
    });
    this.#groups = openGroups(site, this.#traffic);
  }

  send(to: number, tag: number, data: Uint8Array, label?: string): Transfer {
    return this.#sendingEnd(to, tag).send(data, label);
  }

  receive(from: number, tag: number, into: Uint8Array, label?: string): Transfer {
    return this.#receivingEnd(from, tag).receive(into, label);
  }

  outlet(to: number, tag: number): Outlet {
    return this.#sendingEnd(to, tag);
  }

  inlet(from: number, tag: number): Inlet {
    return this.#receivingEnd(from, tag);
  }

  group(id: number): Group {
    const group = this.#groups.get(id);
    return group ?? fault(`device ${this.rank} is in no group ${id}`);
  }

  abort(reason: string): void {
    writeAbort(this.#traffic.control, this.rank, reason);
    this.#traffic.ringAll();
  }

  close(): void {
    this.#traffic.leave();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #sendingEnd(to: number, tag: number): SendingEnd {
    const end = this.#sending[to]?.get(tag);
    return end ?? fault(`no channel ${this.rank} -> ${to} tag ${tag} was declared`);
  }

  #receivingEnd(from: number, tag: number): ReceivingEnd {
    const end = this.#receiving[from]?.get(tag);
    return end ?? fault(`no channel ${from} -> ${this.rank} tag ${tag} was declared`);
  }
}

function openGroups(site: MailboxSite, traffic: Traffic): ReadonlyMap<number, GroupMember> {
  const { plan } = site.layout;
  const groups = new Map<number, GroupMember>();
  groupsOf(plan).forEach((group, index) => {
    if (!group.ranks.includes(site.rank)) return;
    const block = plan.channels.length + index;
    const [bytes, add] = [site.open(block), site.add?.(block)];
    groups.set(group.id, new GroupMember(traffic, { index, plan: group, bytes, direct: site.direct, add }));
  });
  return groups;
}
