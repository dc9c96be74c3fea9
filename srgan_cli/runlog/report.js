// Each pair of pictures follows its slider; the selection above chooses the left picture.
for (const pair of document.querySelectorAll(".pair")) {
  const slider = pair.querySelector("input");
  const follow = () => pair.style.setProperty("--at", slider.value + "%");
  slider.addEventListener("input", follow);
  follow(); // browsers keep a slider's position across reloads
}
for (const choice of document.querySelectorAll("input[name=left]")) {
  const choose = () => { if (choice.checked) document.querySelector(".pairs").dataset.left = choice.value; };
  choice.addEventListener("change", choose);
  choose();
}
