// Runs an exported DELF network in C++, to show that the file needs no Python and gives the same numbers.
//
//   extract MODEL HEIGHT WIDTH IMAGE OUTPUT
//
// IMAGE holds the HEIGHT * WIDTH * 3 bytes of an RGB image, row by row. OUTPUT gets one line a feature:
// x y score scale and the descriptor.

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <ATen/ATen.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: extract MODEL HEIGHT WIDTH IMAGE OUTPUT\n";
    return 2;
  }
  const int64_t height = std::stoll(argv[2]), width = std::stoll(argv[3]);
  std::vector<uint8_t> pixels(height * width * 3);
  std::ifstream input(argv[4], std::ios::binary);
  if (!input.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()))) {
    std::cerr << "cannot read " << argv[4] << "\n";
    return 1;
  }
  const at::Tensor image = at::from_blob(pixels.data(), {height, width, 3}, at::kByte);

  torch::jit::Module model = torch::jit::load(argv[1]);
  std::cout << model.attr("metadata").toStringRef() << "\n";
  const std::vector<double> scales = {0.5, 1.0};
  const int64_t max_features = 20;
  const double score_threshold = 0.0, nms_iou = 0.6;
  auto found = model.forward({image, scales, max_features, score_threshold, nms_iou}).toGenericDict();

  const at::Tensor keypoints = found.at("keypoints").toTensor(), scores = found.at("scores").toTensor();
  const at::Tensor feature_scales = found.at("scales").toTensor();
  const at::Tensor descriptors = found.at("descriptors").toTensor();
  const at::Tensor table = at::cat({keypoints, scores.unsqueeze(1), feature_scales.unsqueeze(1), descriptors}, 1).contiguous();
  std::ofstream output(argv[5]);
  output.precision(9);
  const float* numbers = table.data_ptr<float>();
  for (int64_t row = 0; row < table.size(0); ++row)
    for (int64_t column = 0; column < table.size(1); ++column)
      output << numbers[row * table.size(1) + column] << (column + 1 < table.size(1) ? ' ' : '\n');
  return output ? 0 : 1;
}
