#!/bin/bash
npm view '@google/gemini-cli' version
