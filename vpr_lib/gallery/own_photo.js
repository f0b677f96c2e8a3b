// Sends the chosen photo to the kernel through the input of class vg-upload: name and size at once, then the content,
// in base64, if it isn't too large for one message.
const file = event.target.files[0];
if (file) {
  const input = event.target.closest(".vg-own-photo").querySelector("input.vg-upload, .vg-upload input");
  const send = data => {
    input.value = JSON.stringify({name: file.name, size: file.size, data, time: Date.now()});
    input.dispatchEvent(new Event("change", {bubbles: true}));
  };
  send(null);
  if (file.size <= Number(event.target.dataset.limit)) {
    const reader = new FileReader();
    reader.onload = () => send(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(file);
  }
  event.target.value = "";  // so that the same file can be chosen again
}
