#include <onnxruntime_cxx_api.h>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

int main(int, char** words) {
  std::ifstream file(words[2], std::ios::binary);
  std::vector<char> pixels{std::istreambuf_iterator<char>(file), {}};
  int64_t side = std::lround(std::sqrt(pixels.size() / 3)), shape[] = {1, side, side, 3};  // of a square input
  Ort::Env env;
  Ort::Session session(env, words[1], Ort::SessionOptions());
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, (uint8_t*)pixels.data(), pixels.size(), shape, 4);
  const char *in[] = {"images"}, *out[] = {"boxes", "scores", "labels", "count"};
  auto found = session.Run(Ort::RunOptions(), in, &input, 1, out, 4);
  const float *box = found[0].GetTensorData<float>(), *score = found[1].GetTensorData<float>();
  for (int64_t i = 0; i < *found[3].GetTensorData<int64_t>(); i++, box += 4)
    std::printf("%d %.3f %.1f %.1f %.1f %.1f\n", (int)found[2].GetTensorData<int64_t>()[i], score[i], box[0], box[1], box[2], box[3]);
}
