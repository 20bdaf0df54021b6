// Makes charts of the page's drawings: zoom (drag; a double click ends it), values under the
// pointer, one time axis for all charts of a section, series that can be hidden. The drawings stay
// for print and for readers without scripts. Texts come from outside: they are only ever set as
// text.
"use strict";
(() => {
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];
  const BORDERS = ["solid", "dashed", "dotted", "dashed"];
  const NINES = [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
  const FONT = "12px system-ui, sans-serif";
  const charts = [];

  const colour = name =>
    getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const nines = share => -Math.log10(Math.max(1 - share, 1e-9));
  const said = value => {
    if (value == null) return "–";
    if (value > 0 && value < 1) return (Math.floor(value * 1000 + 1e-6) / 1000).toFixed(3);
    return value >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(3));
  };
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text || "";
    return made;
  };

  // One array of xs, and for each series its ys; a row's shares lie above its foot.
  function table(spec) {
    const isNines = spec.x[0] === "nines";
    const at = xs => isNines ? xs.map(nines) : xs;
    const rows = spec.series[0].how === "row";
    const ys = spec.series.map((each, number) => !rows ? each.ys : each.ys.map(
      share => share == null ? null : foot(spec, number) + 0.8 * share));
    if (spec.at) return [at(spec.at), ...ys];
    return uPlot.join(spec.series.map((each, number) => {
      const order = each.xs.map((_, n) => n).sort((a, b) => each.xs[a] - each.xs[b]);
      return [at(order.map(n => each.xs[n])), order.map(n => ys[number][n])];
    }), spec.series.map(each => [each.how === "points" ? 1 : 2]));
  }
  const foot = (spec, number) => spec.series.length - 1 - number + 0.1;

  function series(each, number, spec) {
    const common = {label: each.name, stroke: () => colour(each.colour), width: 2,
      dash: DASHES[each.dash], points: {show: each.ys.length < 4, size: 5}};
    if (each.how === "points")
      return {...common, paths: () => null,
        points: {show: true, size: 5, width: 1, fill: () => colour(each.colour)}};
    if (each.how === "row")
      return {...common, width: 1, points: {show: false}, fill: () => colour(each.colour) + "8c",
        fillTo: () => foot(spec, number), paths: uPlot.paths.stepped({align: 1})};
    if (each.how === "steps")
      return {...common, points: {show: false}, paths: uPlot.paths.stepped({align: 1})};
    return common;
  }

  function axes(spec) {
    const look = {stroke: () => colour("muted"), font: FONT, labelFont: FONT,
      grid: {stroke: () => colour("grid"), width: 1}, ticks: {stroke: () => colour("grid"), size: 4}};
    const isRows = spec.series[0].how === "row";
    const below = {...look, size: 30, gap: 2, labelSize: 18, labelGap: 0,
      label: spec.x[1]};
    if (spec.x[0] === "nines") {
      below.splits = u => NINES.map(nines).filter(v => v <= u.scales.x.max && v >= u.scales.x.min);
      below.values = (u, found) => found.map(v => +(100 * (1 - 10 ** -v)).toFixed(6) + "%");
    }
    const beside = {...look, size: 50, gap: 4, labelSize: 16, labelGap: 0,
      label: isRows ? undefined : spec.y[1] || undefined};
    if (isRows) {
      beside.size = 20 + 6.6 * Math.max(...spec.y.map(name => name.length));
      beside.splits = () => spec.series.map((_, number) => foot(spec, number) + 0.4);
      beside.values = () => spec.series.map(each => each.name);
      beside.stroke = () => colour("ink");
      beside.grid = {show: false};
    } else if (spec.y[0] === "log") {
      const isPower = v => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9;
      beside.filter = (u, found) => found.map(v => v != null && isPower(v) ? v : null);
      beside.values = (u, found) => found.map(v => v == null ? null : String(+v.toPrecision(6)));
    }
    return {axes: [below, beside], isRows};
  }

  const pen = document.createElement("canvas").getContext("2d");
  const wide = text => {
    pen.font = FONT;
    return pen.measureText(text).width;
  };
  // Labels of bands lie in the lowest row with room, at most so many rows; the rest are left out.
  const LABEL_ROWS = 3;
  function rowFor(ends, from, room) {
    const x = Math.max(0, from), row = ends.findIndex(end => end <= x);
    const found = row < 0 ? ends.length : row;
    if (found < LABEL_ROWS) ends[found] = x + room + 8;
    return found;
  }

  // How many rows of labels the whole chart has.
  function labelRows(spec, width) {
    const scale = width / (spec.x[3] - spec.x[2]), ends = [];
    for (const [begin, end, label] of spec.bands)
      if (label) rowFor(ends, Math.min((begin - spec.x[2]) * scale, width + 20 - wide(label)),
        wide(label));
    return Math.max(1, ends.length);
  }

  function bands(spec, rows) {
    return u => {
      const {ctx} = u, ratio = devicePixelRatio, {left, top, width, height} = u.bbox;
      const ends = [];
      ctx.save();
      ctx.font = 12 * ratio + "px system-ui, sans-serif";
      for (const [begin, end, label] of spec.bands) {
        const from = Math.max(left, u.valToPos(begin, "x", true));
        const to = Math.min(left + width, u.valToPos(end, "x", true));
        if (to <= from) continue;
        ctx.fillStyle = colour("band") + "29";
        ctx.fillRect(from, top, Math.max(ratio, to - from), height);
        if (!label) continue;
        const room = wide(label);
        const x = Math.max(0, Math.min((from - left) / ratio, width / ratio + 20 - room));
        const row = rowFor(ends, x, room);
        if (row >= rows) continue;
        ctx.fillStyle = colour("muted");
        ctx.fillText(label, left + x * ratio, top - (5 + 14 * row) * ratio);
      }
      ctx.restore();
    };
  }

  function make(place) {
    const spec = JSON.parse(place.querySelector("script").textContent);
    const svg = place.querySelector("svg"), title = svg.getAttribute("aria-label");
    const isTime = spec.x[0] === "linear", group = place.dataset.group;
    const {axes: both, isRows} = axes(spec);
    const rowsOfLabels = labelRows(spec, place.clientWidth - 90);
    const whole = spec.x[0] === "nines"
      ? {min: nines(spec.x[2]), max: nines(spec.x[3])} : {min: spec.x[2], max: spec.x[3]};
    const holder = element("div", "plot");
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", title + ", interactive");
    const keys = element("div", "keys"), at = element("span", "at");
    const back = element("button", "back", "show all");
    back.type = "button";
    back.hidden = true;
    place.append(holder, keys);
    const size = () => ({width: place.clientWidth,
      height: Math.round(Math.min(place.clientWidth, 800) * (isRows ? 0 : 0.3))
        + (isRows ? 64 + 26 * spec.series.length : 64) + 14 * (rowsOfLabels - 1)});
    let chart;
    const zoom = range => {
      for (const each of charts)
        if (each.plot === chart || (isTime && each.isTime && each.group === group)) {
          const {min, max} = each.plot.scales.x;
          if (min !== range.min || max !== range.max) each.plot.setScale("x", range);
        }
    };
    const values = spec.series.map((each, number) => {
      const key = element("button", "key"), mark = element("i", ""), value = element("b", "");
      key.type = "button";
      key.setAttribute("aria-pressed", "true");
      if (each.how === "points") {
        mark.className = "dot";
        mark.style.background = `var(--${each.colour})`;
      } else mark.style.borderTop = `3px ${BORDERS[each.dash]} var(--${each.colour})`;
      key.append(mark, element("span", "", each.name), value);
      key.hidden = !each.name;
      key.onclick = () => {
        const show = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", String(show));
        chart.setSeries(number + 1, {show});
      };
      keys.append(key);
      return value;
    });
    if (isRows) keys.classList.add("rows");
    keys.prepend(at);
    keys.append(back);
    chart = new uPlot({
      ...size(), padding: [8 + 14 * rowsOfLabels, 20, 0, 0], legend: {show: false}, axes: both,
      scales: {
        x: {time: false, range: (u, min, max) => min == null ? [whole.min, whole.max] : [min, max]},
        y: isRows ? {range: [0, spec.series.length]}
          : {distr: spec.y[0] === "log" ? 3 : 1, range: [spec.y[2], spec.y[3]]},
      },
      series: [{}, ...spec.series.map((each, number) => series(each, number, spec))],
      cursor: {
        drag: {x: true, y: false}, points: {show: !isRows},
        sync: isTime ? {key: group, scales: ["x", null]} : undefined,
        bind: {dblclick: () => () => { zoom(whole); return null; }},
      },
      hooks: {
        drawClear: [bands(spec, rowsOfLabels)],
        setCursor: [u => {
          const here = u.cursor.idx;
          at.textContent = here == null ? "" : (spec.x[0] === "nines"
            ? +(100 * (1 - 10 ** -u.data[0][here])).toFixed(4) + "%" : said(u.data[0][here]) + " s");
          spec.series.forEach((each, number) => {
            const value = here == null ? null : u.data[number + 1][here];
            values[number].textContent = value == null ? ""
              : said(isRows ? Math.min(1, (value - foot(spec, number)) / 0.8 + 1e-9) : value);
          });
        }],
        setScale: [(u, name) => {
          if (name !== "x" || !chart) return;
          const {min, max} = u.scales.x;
          back.hidden = min === whole.min && max === whole.max;
          zoom({min, max});
        }],
      },
    }, table(spec), holder);
    back.onclick = () => zoom(whole);
    charts.push({plot: chart, group, isTime});
    const other = charts.find(each => each.isTime && isTime && each.group === group);
    chart.setScale("x", !other || other.plot === chart ? whole
      : {min: other.plot.scales.x.min, max: other.plot.scales.x.max});
    place.classList.add("live");
    new ResizeObserver(() => {
      if (place.clientWidth && place.clientWidth !== chart.width) chart.setSize(size());
    }).observe(place);
  }

  const seen = new IntersectionObserver(found => {
    for (const each of found) {
      if (!each.isIntersecting) continue;
      seen.unobserve(each.target);
      try {
        make(each.target);
      } catch (error) {
        each.target.classList.remove("live");
        each.target.querySelectorAll(".plot, .keys").forEach(part => part.remove());
        console.error(error);
      }
    }
  }, {rootMargin: "400px"});
  document.querySelectorAll(".drawing[data-group]").forEach(each => seen.observe(each));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
    () => charts.forEach(each => each.plot.redraw(false)));
})();
