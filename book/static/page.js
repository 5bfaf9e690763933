// One control in the header that unfolds all code, and figures that open at their full size.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll("article .cell_output img, article figure img")) {
    if (image.closest("a, button, .jupyter-widgets")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.title = "Open the figure at full size";
    link.className = "enlarge";
    image.replaceWith(link);
    link.append(image);
  }

  const folded = document.querySelectorAll("article details.above-input");
  const header = document.querySelector(".article-header-buttons");
  if (!folded.length || !header) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-sm all-code";
  const say = () => {
    button.textContent = button.ariaPressed === "true" ? "Hide all code" : "Show all code";
  };
  button.ariaPressed = "false";
  button.addEventListener("click", () => {
    button.ariaPressed = String(button.ariaPressed !== "true");
    for (const part of folded) part.open = button.ariaPressed === "true";
    say();
  });
  say();
  header.prepend(button);
});
