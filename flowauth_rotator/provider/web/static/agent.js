import { lead, mark, say, stamp, tell } from "./dom.js";
import { fromNow, localTime, utcMoment } from "./time.js";
import { label, severityOf } from "./words.js";

/** The heartbeat of one rotation DAG. */
export class Agent {
  constructor() {
    Object.assign(this, stamp("agent"));
  }

  update(agent, now) {
    this.agent = agent;
    const { parts } = this;
    say(parts.dag, agent.dag_id);
    lead(parts.dag, agent.url);
    mark(this.root, "data-severity", severityOf(agent));
    say(parts.state, label(agent.state));
    tell(parts.sentence, agent.sentence);
    tell(parts.schedule, agent.schedule);
    this.tick(now);
  }

  tick(now) {
    for (const [part, epoch] of [
      [this.parts.lastCheck, this.agent.last_check_at],
      [this.parts.nextCheck, this.agent.next_check_at],
    ]) {
      tell(part, epoch && `${fromNow(epoch, now, true)}, ${localTime(epoch, now)}`);
      mark(part, "title", epoch && utcMoment(epoch, true));
    }
  }
}
