// Adds to the unit explorer of a page what linked widgets cannot do by themselves: links to
// units (?unit=NAME or #unit-NAME), arrow keys, next and previous, and a status for screen readers.
// `index`: network -> layer -> s | r -> the units of each view, in order.
function unitExplorer(index) {
  const networks = Object.keys(index);
  const chooser = (kind) => document.querySelector(`.unit-explorer .unit-${kind} select`);
  const until = async (condition) => {
    for (let tries = 0; tries < 200; tries++) {
      const value = condition();
      if (value) return value;
      await new Promise((done) => setTimeout(done, 50));
    }
    return null;
  };
  const choose = async (select, option) => {
    if (select.selectedIndex === option) return;
    select.selectedIndex = option;
    select.dispatchEvent(new Event("change", { bubbles: true }));
    // widgets drop a view that is still being made when the next one is asked for, and complain
    await new Promise((done) => setTimeout(done, 150));
    await until(() => document.querySelectorAll(".unit-explorer .unit").length === 2);
  };

  // NAME -> [network, layer, view, rank], of the first view that shows the unit
  const position = (name) => {
    for (const [a, network] of networks.entries())
      for (const [l, layer] of Object.keys(index[network]).entries())
        for (const [letter, views] of Object.entries(index[network][layer]))
          for (const [v, units] of views.entries())
            for (const [r, unit] of units.entries())
              if ([`${network}-${letter}-${layer}-${unit}`, `${network}-${layer}-${unit}`].includes(name))
                return [network, a, l, v, r];
    return null;
  };
  const show = async (name) => {
    const choices = position(name);
    if (!choices) return say(`Unit ${name} is not among the units of this page.`);
    const [network, a, l, v, r] = choices;
    await choose(await until(() => chooser("architecture")), a);
    const layers = Object.keys(index[network]).join();
    await choose(await until(() => {
      const select = chooser("layer");
      return select && [...select.options].map((o) => o.text).join() === layers && select;
    }), l);
    await choose(chooser("view"), v);
    await choose(chooser("rank"), r);
    document.querySelector(".unit-explorer").scrollIntoView({ block: "start" });
  };
  const wanted = () =>
    new URLSearchParams(location.search).get("unit") ||
    (location.hash.startsWith("#unit-") && decodeURIComponent(location.hash.slice(6)));

  let status;
  const say = (text) => { if (status) status.textContent = text; };
  const sayUnits = () => setTimeout(() => say(
    [...document.querySelectorAll(".unit-explorer .unit")]
      .map((card) => `${card.querySelector("h3").innerText.replace("#", "")}: ${card.querySelector("p").innerText}`)
      .join("; ")), 150);

  const step = (by) => {
    const rank = chooser("rank");
    const next = rank.selectedIndex + by;
    if (next >= 0 && next < rank.options.length) choose(rank, next);
  };
  until(() => chooser("rank")).then((rank) => {
    if (!rank) return;
    const root = document.querySelector(".unit-explorer");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Unit explorer");
    for (const [by, sign, label] of [[-1, "‹", "previous unit"], [1, "›", "next unit"]]) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "unit-step", textContent: sign, title: `${label} (arrow keys)` });
      button.setAttribute("aria-label", label);
      button.onclick = () => step(by);
      rank.parentElement.append(button);
    }
    status = document.createElement("p");
    status.className = "unit-status";
    status.setAttribute("role", "status");
    root.append(status);
    root.addEventListener("change", sayUnits);
    document.addEventListener("keydown", (event) => {
      const free = !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey;
      const elsewhere = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName);
      if (free && !elsewhere && event.key === "ArrowRight") step(1);
      if (free && !elsewhere && event.key === "ArrowLeft") step(-1);
    });
    window.addEventListener("hashchange", () => { if (wanted()) show(wanted()); });
    if (wanted()) show(wanted());
  });
}
