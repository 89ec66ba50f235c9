// Events, frames, answers and decoded pictures come later than they would, so that a test that asks too early fails every time.
{
  const late = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const listen = window.addEventListener.bind(window);
  window.addEventListener = (type, listener, options) =>
    listen(type, type === "hashchange" ? (event) => setTimeout(listener, 250, event) : listener, options);
  const frame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => frame(() => setTimeout(() => frame(draw), 120));
  for (const [owner, name] of [[window, "fetch"], [window, "createImageBitmap"], [HTMLImageElement.prototype, "decode"]]) {
    const native = owner[name];
    owner[name] = async function (...values) {
      await late(150);
      return native.apply(this, values);
    };
  }
}
