// A table that sorts by any column and filters by name.
"use strict";

/**
 * @param {object} options
 * @param {{label: string, title?: string, value: function, show?: function, left?: boolean,
 *   better?: number, group?: number, name?: string}[]} options.columns
 *   `value(row)` sorts (null goes last), `show(row)` gives text or an element.
 * @param {object[]} options.rows
 * @param {Node[]=} options.groups  headings over columns of the same `group`
 * @param {{column: number, down: boolean}=} options.sort  what to sort by first
 * @param {function=} options.label  class of a row
 */
function makeTable({ columns, rows, groups, sort, rowClass, caption }) {
  const body = h("tbody");
  const state = { ...(sort || { column: 0, down: false }), query: "" };
  const buttons = columns.map((column, number) => h("button", {
    type: "button", title: column.title, onclick: () => choose(number),
  }, column.label, h("span", { class: "arrow", "aria-hidden": "true" })));
  const heads = columns.map((column, number) => h("th", {
    scope: "col", class: cellClass(column),
  }, buttons[number]));
  const head = h("thead", {}, groups && groupRow(columns, groups), h("tr", {}, heads));
  const element = h("table", {}, caption && h("caption", {}, caption), head, body);
  const elements = new Map(rows.map((row) => [row, h("tr", { class: rowClass && rowClass(row) },
    columns.map((column, number) => makeCell(column, row, number)))]));

  function choose(number) {
    const down = (columns[number].better || 0) >= 0 && !columns[number].left;
    state.down = state.column === number ? !state.down : down;
    state.column = number;
    update();
  }

  function update() {
    const column = columns[state.column];
    heads.forEach((each, number) => {
      if (number === state.column) each.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else each.removeAttribute("aria-sort");
    });
    const shown = rows.filter((row) => !state.query || row.name.toLowerCase().includes(state.query));
    shown.sort((a, b) => compareValues(column.value(a), column.value(b), state.down));
    body.replaceChildren(...shown.map((row) => elements.get(row)));
    return shown;
  }

  const table = {
    element,
    /** Show the rows whose name holds `query`; returns them in order. */
    filter(query) { state.query = query.trim().toLowerCase(); return update(); },
  };
  update();
  return table;
}

function compareValues(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a < b ? -1 : a > b ? 1 : 0;
  return down ? -order : order;
}

function cellClass(column) {
  return [column.left ? "left" : "number", column.first ? "first" : "", column.className || ""].join(" ").trim();
}

function makeCell(column, row, number) {
  const content = column.show ? column.show(row) : column.value(row);
  const tag = number === 0 ? "th" : "td";
  const best = column.best && column.best(row);
  return h(tag, { scope: number === 0 ? "row" : null, class: `${cellClass(column)}${best ? " best" : ""}` }, content);
}

/** One heading over neighbouring columns of a group. */
function groupRow(columns, groups) {
  const cells = [];
  for (const column of columns) {
    const last = cells[cells.length - 1];
    if (last && last.group === column.group) last.span += 1;
    else cells.push({ group: column.group, span: 1 });
  }
  return h("tr", { class: "groups" }, cells.map(({ group, span }) => h("th", {
    colspan: span, scope: "colgroup", class: group === undefined ? "" : "first",
  }, group === undefined ? null : groups[group])));
}
