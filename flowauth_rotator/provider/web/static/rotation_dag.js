import {
  byId,
  cloneTemplate,
  createElement,
  reorder,
  setAttribute,
  setLink,
  setList,
  setOptionalText,
  setText,
  setTime,
  setVisible,
  Views,
} from "./dom.js";
import { describeDag, formatLabel, formatSchedule, pluralize } from "./labels.js";
import { formatRelative, formatUpcoming } from "./time.js";

const MANY = 4; // more DAGs that are OK are folded

/** The view of one rotation DAG. */
class RotationDag {
  constructor() {
    Object.assign(this, cloneTemplate("rotation-dag"));
  }

  update(dag, now) {
    this.dag = dag;
    const { parts } = this;
    setText(parts.dag, dag.dag_id);
    setLink(parts.dag, dag.url);
    setAttribute(this.root, "data-severity", dag.severity);
    const condition = describeDag(dag);
    setVisible(parts.state, !condition);
    setText(parts.state, formatLabel(dag.condition));
    setOptionalText(parts.condition, condition);
    setOptionalText(parts.schedule, formatSchedule(dag.schedule));
    this.tick(now);
  }

  tick(now) {
    setTime(this.parts.lastCheck, this.dag.checked_at, now, formatRelative);
    setTime(this.parts.nextCheck, this.dag.next_check_at, now, formatUpcoming);
  }
}

const views = new Views((dag) => dag.dag_id, () => new RotationDag());

/** Show a line for each DAG: those that need attention first, many that are OK folded. */
export function showDags(dags, now) {
  const all = views.update(dags, now);
  const ok = all.filter((view) => view.dag.severity === "ok");
  const folded = ok.length > MANY ? ok : [];
  const shown = [...all.filter((view) => view.dag.severity !== "ok"), ...ok];
  reorder(
    byId("rotation-dag-list"),
    shown.filter((view) => !folded.includes(view)).map((view) => view.root),
  );
  reorder(byId("ok-dag-list"), folded.map((view) => view.root));
  setText(byId("ok-dag-count"), pluralize(folded.length, "rotation DAG is OK", "rotation DAGs are OK"));
  setVisible(byId("ok-dags"), folded.length);
  setVisible(byId("rotation-dags"), all.length);
  showNotices(dags);
}

export function tickDags(now) {
  for (const view of views.all) view.tick(now);
}

/** Show the invalid entries of the lists of managed tokens, unless the line of the DAG does. */
function showNotices(dags) {
  const notices = dags.flatMap((dag) =>
    dag.configuration_errors.filter((error) => !dag.hint.includes(error)),
  );
  setList(byId("notice-list"), notices, (notice) => createElement("li", notice));
  setVisible(byId("notices"), notices.length);
}
