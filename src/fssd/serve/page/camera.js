// A picture from the camera: live in a dialog if the browser allows it, else by the system's camera app.

/** dialog, video, snap, close: elements. shoot: a file input with `capture`. take: called with the picture, a File. */
export function useCamera({ dialog, video, snap, close, shoot }, take, fail) {
  let stream = null;

  async function open() {
    if (!navigator.mediaDevices?.getUserMedia) {
      shoot.click(); // browsers allow the live camera on localhost and over HTTPS only
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
    } catch (error) {
      fail(error.name === "NotAllowedError" ? "The camera was not allowed; choose an image instead." : "No camera was found; choose an image instead.");
      return;
    }
    video.srcObject = stream;
    dialog.showModal();
  }

  function stop() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.srcObject = null;
  }

  async function picture() {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    if (!canvas.width) return;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    dialog.close();
    take(new File([blob], "camera.jpg", { type: "image/jpeg" }));
  }

  dialog.addEventListener("close", stop);
  close.addEventListener("click", () => dialog.close());
  snap.addEventListener("click", picture);
  return open;
}
