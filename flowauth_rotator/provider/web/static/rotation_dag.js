import { cloneTemplate, setAttribute, setLink, setOptionalText, setText } from "./dom.js";
import { formatLabel, formatSchedule } from "./labels.js";
import { formatRelative, formatTime, formatUtc } from "./time.js";

/** The view of one rotation DAG. */
export class RotationDag {
  constructor() {
    Object.assign(this, cloneTemplate("rotation-dag"));
  }

  update(dag, now) {
    this.dag = dag;
    const { parts } = this;
    setText(parts.dag, dag.dag_id);
    setLink(parts.dag, dag.url);
    setAttribute(this.root, "data-severity", dag.severity);
    setText(parts.state, formatLabel(dag.condition));
    setOptionalText(parts.message, dag.checked_at === null ? dag.message : null);
    setOptionalText(parts.hint, dag.hint);
    setOptionalText(parts.schedule, formatSchedule(dag.schedule));
    this.tick(now);
  }

  tick(now) {
    for (const [part, epoch] of [
      [this.parts.lastCheck, this.dag.checked_at],
      [this.parts.nextCheck, this.dag.next_check_at],
    ]) {
      const text = epoch && `${formatRelative(epoch, now, true)}, ${formatTime(epoch, now)}`;
      setOptionalText(part, text);
      setAttribute(part, "title", epoch && formatUtc(epoch, true));
    }
  }
}
